//! A key in the map of the store, which may hold millions of keys.
//!
//! This type takes less memory than `Bytes`, which takes 32 bytes, an allocation for its content,
//! and often one more to count its users. A [`Key`] takes 24 bytes. A key of up to 22 bytes is
//! stored within them; a longer key takes one allocation. The map compares short keys without
//! following a pointer.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The longest key that is stored within the [`Key`] itself, in bytes. A [`Key`] takes 24 bytes,
/// because it may hold an `Arc<[u8]>` of 16 bytes and needs a tag; tag and length leave 22 bytes
/// for a short key.
const INLINE: usize = 22;

/// The bytes of a key. A clone copies an inline key and shares a longer one.
#[derive(Clone)]
pub(super) enum Key {
    Inline { len: u8, bytes: [u8; INLINE] },
    Shared(Arc<[u8]>),
}

impl Key {
    pub fn new(slice: &[u8]) -> Self {
        if slice.len() > INLINE {
            return Self::Shared(slice.into());
        }
        let mut bytes = [0; INLINE];
        bytes[..slice.len()].copy_from_slice(slice);
        let len = slice.len() as u8;
        Self::Inline { len, bytes }
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Lets a map of keys be searched by a plain slice. `Borrow` requires that keys have the equality
/// and the order of their slices, as they do here.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Key {}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_takes_three_words() {
        assert_eq!(size_of::<Key>(), 3 * size_of::<usize>());
    }

    #[test]
    fn keys_of_every_length_come_back_and_stay_in_order() {
        let text: Vec<u8> = (0..100).collect();
        let keys: Vec<Key> = (0..=100).map(|len| Key::new(&text[..len])).collect();
        for (len, key) in keys.iter().enumerate() {
            assert_eq!(**key, text[..len]);
        }
        assert!(keys.is_sorted_by(|a, b| a < b));
        assert!(Key::new(b"b") > keys[100]);
    }

    #[test]
    fn a_clone_shares_what_does_not_fit_into_the_handle() {
        let key = Key::new(&[7; INLINE + 1]);
        assert_eq!(key.as_ptr(), key.clone().as_ptr());
    }
}
