# SPDX-License-Identifier: MIT OR Apache-2.0
# A stand-in for virt-v2v: runs nbdkit and nbdcopy as it does, for two disks.
#
# $nbdkit, $script, $options and the parameters $disk1 and $disk2 are set by lines that a test puts before this; $patience,
# the fiftieths of a second that it waits for a pid file, may be.
# virt-v2v is done with nbdkit when it has ended, not when it was told to.
set -e

$nbdkit --version >/dev/null 2>&1
$nbdkit --dump-config >dump-config
$nbdkit null --filter=cow --version >/dev/null 2>&1
# By its name even where the rest is by path.
nbdkit python "$script" --dump-plugin >dump-plugin
nbdkit --long-options | grep -q '^--name$' && options="--name out $options"

# It collects parameters from disk to disk, so that those of the last are given again.
parameters="script=$script"
pids=
for disk in 1 2; do
    eval "parameters=\"\$parameters \$disk$disk\""
    LANG=C $nbdkit --exit-with-parent --foreground --pidfile "$PWD/nbdkit$disk.pid" --unix "$PWD/out$disk" \
        $options python $parameters &
    pids="$pids $!"
    # It does not look whether its child still lives.
    tries=0
    until [ -s "nbdkit$disk.pid" ]; do
        tries=$((tries + 1))
        [ $tries -le "${patience:-1500}" ] || { echo 'nbdkit did not start up' >&2; exit 1; }
        sleep 0.02
    done
    chmod 700 "$PWD/out$disk"
done
for disk in 1 2; do
    nbdcopy guest.img "nbd+unix:///?socket=$PWD/out$disk" --request-size=4194304 --requests=16 --flush
done
kill $pids
for pid in $pids; do
    wait $pid
done
