//! A key, of which there may be millions.
//!
//! A `Bytes` takes 32 bytes, an allocation for what it points to and often one more to count its
//! users. Here a short key lies within a handle of 24 bytes, and any other takes one allocation
//! besides. The map compares short keys without a look elsewhere.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The most bytes that fit beside the length and the tag into a handle that must hold an
/// `Arc<[u8]>` otherwise.
const INLINE: usize = 22;

/// The bytes of a key. A clone shares them where they are not within.
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

/// Lets a map be asked for a plain slice: equality and order are those of the slices.
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
