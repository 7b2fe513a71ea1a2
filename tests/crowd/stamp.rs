//! Bodies that tell what they were made for.

use std::ops::Range;

use bytes::Bytes;

use crate::random::mixed;

/// What a body is made for: each of its bytes depends on all of this, and on its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) key: u64,
    /// Of the data that the handler has read.
    pub(crate) generation: u64,
    /// Of the body, in bytes; a multiple of that of a word.
    pub(crate) length: usize,
}

const WORD: usize = size_of::<u64>();

impl Stamp {
    pub(crate) fn body(self) -> Bytes {
        self.piece(0..self.length)
    }

    /// Returns a part of the body that begins and ends between words.
    pub(crate) fn piece(self, range: Range<usize>) -> Bytes {
        let mut piece = Vec::with_capacity(range.len());
        for word in range.start / WORD..range.end / WORD {
            piece.extend_from_slice(&self.word(word).to_le_bytes());
        }
        piece.into()
    }

    /// The first words are the stamp as it is.
    fn word(self, number: usize) -> u64 {
        match number {
            0 => self.key,
            1 => self.generation,
            2 => self.length as u64,
            _ => mixed(mixed(mixed(self.key) ^ self.generation) ^ self.length as u64)
                .wrapping_add(mixed(number as u64)),
        }
    }

    /// Returns the stamp of a body, all of whose bytes are as it says.
    pub(crate) fn of(body: &[u8]) -> Self {
        let word = |number: usize| {
            let word = body.get(number * WORD..(number + 1) * WORD);
            u64::from_le_bytes(word.expect("a stamp").try_into().unwrap())
        };
        let stamp = Self {
            key: word(0),
            generation: word(1),
            length: body.len(),
        };
        assert_same(body, &stamp.body());
        stamp
    }
}

/// Compares without filling the screen.
pub(crate) fn assert_same(came: &[u8], expected: &[u8]) {
    let differs = || came.iter().zip(expected).position(|(one, two)| one != two);
    assert!(
        came == expected,
        "{} bytes, not {}; the first that differs: {:?}",
        came.len(),
        expected.len(),
        differs()
    );
}
