// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user and the group that this process becomes once the sockets are made (`--user`,
//! `--group`).

use std::ffi::CString;
use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setgroups, setuid};

use crate::cli::Options;

/// A user, a group, or neither.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    user: Option<Uid>,
    group: Option<Gid>,
    /// Of the user, with whose further groups it goes.
    name: Option<String>,
}

impl Identity {
    /// Looks up whom the options name. A user's group is its first one, unless a group is named.
    pub(crate) fn find(options: &Options) -> Result<Self> {
        let user = options.user.as_deref().map(find_user).transpose()?;
        let group = options.group.as_deref().map(find_group).transpose()?;
        let known = user.as_ref().and_then(|(_, known)| known.as_ref());
        let name = known.filter(|_| group.is_none()).map(|known| known.name.clone());
        let group = group.or(known.map(|known| known.gid));
        if let (Some((user, None)), None) = (&user, group) {
            bail!("--user={user}: the system doesn't know this user, so add --group");
        }
        Ok(Self { user: user.map(|(uid, _)| uid), group, name })
    }

    /// Returns true if there is nothing to become.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.user.is_none_or(|user| user == Uid::current())
            && self.group.is_none_or(|group| group == Gid::current())
    }

    /// Makes a file theirs.
    pub(crate) fn own(&self, file: &Path) -> Result<()> {
        let (user, group) = (self.user.map(Uid::as_raw), self.group.map(Gid::as_raw));
        chown(file, user, group).with_context(|| format!("cannot change the owner of {}", file.display()))
    }

    /// Becomes that user and a member of that group: in this order, as only root may change its
    /// groups.
    pub(crate) fn assume(&self) -> Result<()> {
        if let Some(group) = self.group {
            let groups = match &self.name {
                Some(name) => initgroups(&CString::new(name.as_str())?, group),
                None => setgroups(&[group]),
            };
            groups
                .and_then(|()| setgid(group))
                .with_context(|| format!("cannot become a member of group {group}"))?;
        }
        if let Some(user) = self.user {
            setuid(user).with_context(|| format!("cannot become user {user}"))?;
        }
        Ok(())
    }
}

/// A user by name or number. The system need not know the number.
fn find_user(text: &str) -> Result<(Uid, Option<User>)> {
    let of_number = text.parse().ok().map(Uid::from_raw);
    let known = match of_number {
        Some(uid) => User::from_uid(uid),
        None => User::from_name(text),
    };
    let known = known.context("--user: the user can't be looked up")?;
    let uid = of_number.or(known.as_ref().map(|known| known.uid));
    Ok((uid.with_context(|| format!("--user={text}: there is no such user"))?, known))
}

/// A group by name or number.
fn find_group(text: &str) -> Result<Gid> {
    if let Ok(number) = text.parse() {
        return Ok(Gid::from_raw(number));
    }
    let known = Group::from_name(text).context("--group: the group can't be looked up")?;
    known.map(|known| known.gid).with_context(|| format!("--group={text}: there is no such group"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::options;

    fn identity(arguments: &str) -> Result<Identity> {
        Identity::find(&options(&format!("imageio-nbd {arguments} u")))
    }

    #[test]
    fn users_and_groups_are_found_by_name_or_number() {
        let root = |name: Option<&str>| Identity {
            user: Some(Uid::from_raw(0)),
            group: Some(Gid::from_raw(0)),
            name: name.map(str::to_owned),
        };
        assert_eq!(identity("--user=root").unwrap(), root(Some("root")));
        assert_eq!(identity("-u 0").unwrap(), root(Some("root")));
        assert_eq!(identity("-u root -g 0").unwrap(), root(None));
        let (user, group) = (Some(Uid::from_raw(3_999_999)), Some(Gid::from_raw(7)));
        assert_eq!(identity("-u 3999999 -g 7").unwrap(), Identity { user, group, name: None });
        let error = identity("-u 3999999").unwrap_err().to_string();
        assert_eq!(error, "--user=3999999: the system doesn't know this user, so add --group");
        assert_eq!(identity("").unwrap(), Identity { user: None, group: None, name: None });
    }

    #[test]
    fn who_is_not_known_is_told() {
        for (arguments, told) in
            [("-u no-such-user", "--user=no-such-user"), ("-g no-such", "--group=no-such")]
        {
            let error = identity(arguments).unwrap_err().to_string();
            assert!(error.starts_with(told) && error.contains("there is no such"), "{error}");
        }
    }
}
