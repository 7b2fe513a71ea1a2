//! Telling what was stored by those who know a secret from what was not.
//!
//! A sealed value stands behind 32 bytes: keyed BLAKE3 of the value, by a key that is itself keyed
//! BLAKE3 of the name the value stands under, by a key derived from the secret.

use blake3::{Hash, Hasher, OUT_LEN};
use bytes::Bytes;
use smallvec::SmallVec;

use super::layout::Name;
use crate::error::{Error, ErrorKind};

/// Seals values; without a secret, it lets them pass as they are.
///
/// Not `Debug`: nothing is to show it.
#[derive(Default)]
pub(super) struct Seal {
    /// The one that seals, then the one that sealed before.
    keys: SmallVec<[[u8; OUT_LEN]; 2]>,
}

/// What stands before a value; nothing without a secret.
pub(super) type Tag = SmallVec<[u8; OUT_LEN]>;

/// A secret of fewer bytes might be guessed.
pub(crate) const SHORTEST_SECRET: usize = 16;

impl Seal {
    /// Makes the seal of a secret, which also accepts what was sealed with a former one.
    ///
    /// # Errors
    ///
    /// When a secret is too short, and when there is only a former one.
    pub(super) fn new(secret: Option<&[u8]>, former: Option<&[u8]>) -> Result<Self, Error> {
        if secret.is_none() && former.is_some() {
            let message = "former_secret says what is read beside secret, which is not set";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        for (option, bytes) in [("secret", secret), ("former_secret", former)] {
            if bytes.is_some_and(|bytes| bytes.len() < SHORTEST_SECRET) {
                let message = format!("{option} is shorter than {SHORTEST_SECRET} bytes");
                return Err(Error::new(ErrorKind::Invalid, message));
            }
        }
        let key = |secret| blake3::derive_key("tower-response-cache redis seal v1", secret);
        Ok(Self {
            keys: secret.into_iter().chain(former).map(key).collect(),
        })
    }

    /// Returns what to write before a value that is to stand under a name.
    pub(super) fn tag(&self, name: &Name, value: [&[u8]; 2]) -> Tag {
        let tag = |key| Tag::from(*tag(key, name, value).as_bytes());
        self.keys.first().map(tag).unwrap_or_default()
    }

    /// Returns the value without its tag, if it was sealed to stand under this name.
    pub(super) fn open(&self, name: impl FnOnce() -> Name, sealed: &Bytes) -> Option<Bytes> {
        if self.keys.is_empty() {
            return Some(sealed.clone());
        }
        let name = name();
        let (held, value) = sealed.split_first_chunk::<OUT_LEN>()?;
        // Hashes are compared in constant time, which arrays are not.
        let is_ours = |key| tag(key, &name, [value, &[]]) == Hash::from_bytes(*held);
        let known = self.keys.iter().any(is_ours);
        known.then(|| sealed.slice_ref(value))
    }
}

fn tag(key: &[u8; OUT_LEN], name: &Name, value: [&[u8]; 2]) -> Hash {
    let key = blake3::keyed_hash(key, name.as_bytes());
    let mut hasher = Hasher::new_keyed(key.as_bytes());
    for part in value {
        hasher.update(part);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::layout;
    use super::*;
    use crate::epoch::Scope;
    use crate::key::Namespace;

    const OLD: &[u8] = b"the secret of yesterday";
    const NEW: &[u8] = b"a secret of 24 bytes now";

    fn name(tag: &[u8]) -> Name {
        layout::epoch(&Namespace::default(), Scope::tag("default", tag))
    }

    fn seal(secret: &[u8], former: Option<&[u8]>) -> Seal {
        Seal::new(Some(secret), former).unwrap()
    }

    fn sealed(seal: &Seal, name: &Name, value: &[u8]) -> Bytes {
        let mut bytes = seal.tag(name, [value, &[]]).to_vec();
        bytes.extend_from_slice(value);
        bytes.into()
    }

    #[test]
    fn without_a_secret_values_are_as_they_are() {
        let seal = Seal::default();
        assert!(seal.tag(&name(b""), [b"value", b""]).is_empty());
        let value = Bytes::from_static(b"value");
        assert_eq!(seal.open(|| name(b""), &value), Some(value));
    }

    #[test]
    fn what_a_former_secret_sealed_is_read_and_not_written() {
        let [old, new, both] = [seal(OLD, None), seal(NEW, None), seal(NEW, Some(OLD))];
        let name = name(b"");
        let value = Some(Bytes::from_static(b"value"));
        assert_eq!(
            both.open(|| name.clone(), &sealed(&old, &name, b"value")),
            value
        );
        assert_eq!(
            new.open(|| name.clone(), &sealed(&both, &name, b"value")),
            value
        );
        assert_eq!(
            old.open(|| name.clone(), &sealed(&both, &name, b"value")),
            None
        );
    }

    #[test]
    fn a_tag_stays_what_it_was_in_earlier_releases() {
        let tag = seal(NEW, None).tag(&name(b"a"), [b"head", b"body"]);
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "9db1631da00f7dc6e7fdac745e6748a417b1ad738754e7dd91674f8ea2f93e22"
        );
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused_by_name_and_not_shown() {
        for (secret, former, option) in [
            (Some(&b"hunter2"[..]), None, "secret"),
            (Some(NEW), Some(&b"hunter2"[..]), "former_secret"),
            (None, Some(OLD), "former_secret"),
        ] {
            let error = Seal::new(secret, former).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let message = error.to_string();
            assert!(message.starts_with(&format!("{option} ")), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn a_value_is_opened_under_its_name_and_secret_alone(
            value: Vec<u8>,
            names: [Vec<u8>; 2],
            place: prop::sample::Index,
            change in 1..=u8::MAX,
        ) {
            let [here, there] = names.each_ref().map(|tag| name(tag));
            let [ours, theirs] = [seal(NEW, None), seal(OLD, None)];
            let entry = sealed(&ours, &here, &value);
            prop_assert_eq!(ours.open(|| here.clone(), &entry), Some(value.into()));
            prop_assert_eq!(theirs.open(|| here.clone(), &entry), None);
            prop_assert_eq!(ours.open(|| there.clone(), &entry).is_some(), here == there);
            prop_assert_eq!(ours.open(|| here.clone(), &entry.slice(..place.index(entry.len()))), None);
            let mut changed = entry.to_vec();
            changed[place.index(entry.len())] ^= change;
            prop_assert_eq!(ours.open(|| here.clone(), &changed.into()), None);
        }

        #[test]
        fn any_bytes_are_no_sealed_value(bytes: Vec<u8>) {
            prop_assert_eq!(seal(NEW, Some(OLD)).open(|| name(b""), &bytes.into()), None);
        }
    }
}
