//! Computes the mode of an entry whose access list cannot be kept.
//!
//! With an access list, the group bits of the mode are not the group's rights: they are the mask,
//! the most that any named user or group gets. And the list may deny a named user or group what all
//! others may do. A mode alone must grant no user more than the list did.

const VERSION: u32 = 2;
const USER: u16 = 0x02;
const GROUP_OF_FILE: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// Returns the mode without the access list `list` (the value of `system.posix_acl_access`), no
/// wider for any user. A malformed list leaves only the owner's rights.
pub(crate) fn mode_without(list: &[u8], mode: u32) -> u32 {
    let closed = mode & !0o077;
    let (group, other) = (mode >> 3 & 7, mode & 7);
    let entries = list
        .strip_prefix(&VERSION.to_le_bytes())
        .map(|rest| rest.chunks_exact(8));
    let Some(entries) = entries else {
        return closed;
    };
    let entries = entries.map(|entry| {
        let number = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        (number(0), u32::from(number(2)))
    });
    let mask = entries.clone().find(|(tag, _)| *tag == MASK);
    let mask = mask.map_or(7, |(_, rights)| rights);
    let (mut for_group, mut for_other, mut found) = (group & mask, other, false);
    for (tag, rights) in entries {
        let rights = rights & mask;
        match tag {
            GROUP_OF_FILE => {
                for_group &= rights;
                found = true;
            }
            // This user may be in the group, or be one of the others.
            USER => {
                for_group &= rights;
                for_other &= rights;
            }
            GROUP => for_other &= rights,
            _ => {}
        }
    }
    match found {
        true => closed | for_group << 3 | for_other,
        false => closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_ID: u32 = u32::MAX;
    const OWNER: u16 = 0x01;
    const OTHER: u16 = 0x20;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(rights.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn the_mask_does_not_count_as_the_rights_of_the_group() {
        let opened = list(&[
            (OWNER, 6, NO_ID),
            (USER, 6, 1000),
            (GROUP_OF_FILE, 4, NO_ID),
            (MASK, 6, NO_ID),
            (OTHER, 0, NO_ID),
        ]);
        assert_eq!(mode_without(&opened, 0o660), 0o640);
        assert_eq!(mode_without(&opened, 0o4660), 0o4640);
    }

    #[test]
    fn a_user_or_group_without_rights_gets_none() {
        let user = list(&[
            (OWNER, 6, NO_ID),
            (USER, 0, 1000),
            (GROUP_OF_FILE, 4, NO_ID),
            (MASK, 4, NO_ID),
            (OTHER, 4, NO_ID),
        ]);
        assert_eq!(mode_without(&user, 0o644), 0o600);
        let group = list(&[
            (OWNER, 7, NO_ID),
            (GROUP_OF_FILE, 5, NO_ID),
            (GROUP, 1, 1000),
            (MASK, 5, NO_ID),
            (OTHER, 5, NO_ID),
        ]);
        assert_eq!(mode_without(&group, 0o755), 0o751);
    }

    #[test]
    fn a_malformed_list_grants_nothing() {
        for bytes in [&b""[..], b"\x01\0\0\0", b"\x02\0\0\0", b"\x02\0\0\0\x04\0"] {
            assert_eq!(mode_without(bytes, 0o1777), 0o1700, "{bytes:?}");
        }
    }
}
