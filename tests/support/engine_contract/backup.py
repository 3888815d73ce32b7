# SPDX-License-Identifier: MIT OR Apache-2.0
"""Backs a virtual machine up by the engine's client for Python, as oVirt's documentation has it.

backup.py API-URL VM DIRECTORY [CHECKPOINT]: the disks become DIRECTORY/DISK.qcow2, with what is of DIRECTORY/../full below
them where only changes were downloaded. It prints what came of it as JSON.
"""

import json
import sys
import time

import ovirtsdk4 as sdk
from ovirt_imageio import client
from ovirtsdk4 import types


def wait(get, is_done):
    while True:
        found = get()
        if is_done(found.phase):
            return found
        time.sleep(1)


def download(system, backup, disk, path):
    is_incremental = disk.backup_mode == types.DiskBackupMode.INCREMENTAL
    transfers = system.image_transfers_service()
    transfer = transfers.add(types.ImageTransfer(
        disk=types.Disk(id=disk.id),
        backup=types.Backup(id=backup.id),
        direction=types.ImageTransferDirection.DOWNLOAD,
        format=types.DiskFormat.RAW,
        timeout_policy=types.ImageTransferTimeoutPolicy.CANCEL,
    ))
    service = transfers.image_transfer_service(transfer.id)
    phases = types.ImageTransferPhase
    transfer = wait(service.get, lambda phase: phase != phases.INITIALIZING)
    assert transfer.phase == phases.TRANSFERRING, transfer.phase
    assert transfer.backup.id == backup.id, transfer.backup
    assert system.hosts_service().host_service(transfer.host.id).get().name
    try:
        client.download(
            transfer.transfer_url,
            path,
            "ca.pem",
            incremental=is_incremental,
            backing_file=f"../full/{disk.id}.qcow2" if is_incremental else None,
            backing_format="qcow2",
        )
    finally:
        service.finalize()
    finished = wait(service.get, lambda phase: phase in (phases.FINISHED_SUCCESS, phases.FINISHED_FAILURE))
    assert finished.phase == phases.FINISHED_SUCCESS
    assert finished.transfer_url is None, "the ticket is gone"


def back_up(system, vm, directory, checkpoint):
    service = system.vms_service().vm_service(vm)
    assert service.get().id == vm
    attached = service.disk_attachments_service().list()
    disks = [system.disks_service().disk_service(one.disk.id).get() for one in attached]
    backups = service.backups_service()
    backup = backups.add(types.Backup(disks=disks, from_checkpoint_id=checkpoint, description="a test"))
    service = backups.backup_service(backup.id)
    phases = types.BackupPhase
    backup = wait(service.get, lambda phase: phase in (phases.READY, phases.FAILED))
    assert backup.phase == phases.READY and backup.vm.id == vm
    modes = {}
    try:
        for disk in service.disks_service().list():
            modes[disk.id] = disk.backup_mode.value
            download(system, backup, disk, f"{directory}/{disk.id}.qcow2")
    finally:
        service.finalize()
        wait(service.get, lambda phase: phase == phases.SUCCEEDED)
    return {"checkpoint": backup.to_checkpoint_id, "modes": modes}


def main(url, vm, directory, checkpoint=None):
    with open("password") as file:
        password = file.read()
    connection = sdk.Connection(url=url, username="admin@internal", password=password, ca_file="ca.pem")
    try:
        print(json.dumps(back_up(connection.system_service(), vm, directory, checkpoint)))
    finally:
        connection.close()


main(*sys.argv[1:])
