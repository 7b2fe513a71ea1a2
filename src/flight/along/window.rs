//! What is held of a body, and where its readers stand.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

/// Small chunks are joined up to this length, so that a body of a million chunks is not held in
/// a million pieces, each perhaps the corner of a large buffer.
const JOINED: usize = 16 * 1024;

/// The part of a body that is held: all of it while that is no more than `keep`, else what lies
/// between its slowest and its fastest reader.
///
/// Once that is as much as `keep`, the window is [full](Self::is_full), and nothing more should come
/// until the slowest has read on, or has been [cut off](Self::cut_off).
pub(super) struct Window {
    keep: u64,
    chunks: VecDeque<Chunk>,
    /// The length of the body so far.
    end: u64,
    whole: bool,
    /// How many readers stand where; those that were cut off stand nowhere.
    places: BTreeMap<u64, usize>,
}

struct Chunk {
    at: u64,
    data: Bytes,
}

/// A reader has been cut off.
#[derive(Debug, PartialEq)]
pub(super) struct Behind;

impl Window {
    pub(super) fn new(keep: u64) -> Self {
        Self {
            keep,
            chunks: VecDeque::new(),
            end: 0,
            whole: true,
            places: BTreeMap::new(),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) fn has_readers(&self) -> bool {
        !self.places.is_empty()
    }

    /// Whether to wait for the slowest reader before more is pushed.
    pub(super) fn is_full(&self) -> bool {
        !self.whole && !self.chunks.is_empty() && self.held() >= self.keep
    }

    /// Cuts the slowest readers off until it is full no more.
    ///
    /// Who has read all is never one of them.
    pub(super) fn cut_off(&mut self) {
        while self.is_full() {
            self.chunks.pop_front();
            self.places = self.places.split_off(&self.start());
        }
    }

    /// Returns the length of what comes after `place`.
    pub(super) fn ahead(&self, place: u64) -> u64 {
        self.end.saturating_sub(place)
    }

    /// Lets a reader in at the beginning.
    pub(super) fn enter(&mut self) {
        self.put(0);
    }

    /// Lets a reader go that stood at `place`.
    pub(super) fn leave(&mut self, place: u64) {
        if place >= self.start() {
            self.take(place);
            self.slide();
        }
    }

    /// Reads at `place` and moves it on; `None` if there is no more as yet.
    ///
    /// # Errors
    ///
    /// When what comes there is no longer held.
    pub(super) fn read(&mut self, place: &mut u64) -> Result<Option<Bytes>, Behind> {
        if *place < self.start() {
            return Err(Behind);
        }
        let after = self.chunks.partition_point(|chunk| chunk.at <= *place);
        let chunk = after
            .checked_sub(1)
            .and_then(|index| self.chunks.get(index));
        let Some(data) = chunk.and_then(|chunk| chunk.from(*place)) else {
            return Ok(None);
        };
        self.take(*place);
        *place = place.saturating_add(length(&data));
        self.put(*place);
        self.slide();
        Ok(Some(data))
    }

    /// Takes in what comes next.
    pub(super) fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let more = length(&data);
        if self.held().saturating_add(more) > self.keep {
            self.let_go();
        }
        self.chunks.push_back(Chunk { at: self.end, data });
        self.end = self.end.saturating_add(more);
        self.join();
    }

    /// Lets go of what all have read, now and from now on.
    pub(super) fn let_go(&mut self) {
        self.whole = false;
        self.slide();
    }

    /// Returns the chunks held.
    pub(super) fn chunks(&self) -> Vec<Bytes> {
        self.chunks.iter().map(|chunk| chunk.data.clone()).collect()
    }

    /// Holds the whole body in one piece from now on.
    pub(super) fn replace(&mut self, body: Bytes) {
        self.chunks.clear();
        self.chunks.push_back(Chunk { at: 0, data: body });
    }

    fn start(&self) -> u64 {
        self.chunks.front().map_or(self.end, |chunk| chunk.at)
    }

    fn held(&self) -> u64 {
        self.end.saturating_sub(self.start())
    }

    fn put(&mut self, place: u64) {
        let readers = self.places.entry(place).or_default();
        *readers = readers.saturating_add(1);
    }

    fn take(&mut self, place: u64) {
        if let Some(readers) = self.places.get_mut(&place) {
            *readers = readers.saturating_sub(1);
            if *readers == 0 {
                self.places.remove(&place);
            }
        }
    }

    fn slide(&mut self) {
        if self.whole {
            return;
        }
        let slowest = self.places.keys().next().copied().unwrap_or(self.end);
        while self
            .chunks
            .front()
            .is_some_and(|chunk| chunk.end() <= slowest)
        {
            self.chunks.pop_front();
        }
    }

    /// Joins the last chunks as long as they are no longer than what follows them, so that no byte
    /// is copied more than some 14 times.
    fn join(&mut self) {
        while let Some(last) = self.chunks.pop_back() {
            let joins = self.chunks.back().is_some_and(|before| {
                let (before, last) = (before.data.len(), last.data.len());
                before <= last && before.saturating_add(last) <= JOINED
            });
            match self.chunks.back_mut() {
                Some(before) if joins => before.data = joined(&[before.data.clone(), last.data]),
                _ => return self.chunks.push_back(last),
            }
        }
    }
}

impl Chunk {
    fn end(&self) -> u64 {
        self.at.saturating_add(length(&self.data))
    }

    /// Returns what comes after `place` in it, if anything.
    fn from(&self, place: u64) -> Option<Bytes> {
        let skipped = usize::try_from(place.saturating_sub(self.at)).ok()?;
        (skipped < self.data.len()).then(|| self.data.slice(skipped..))
    }
}

/// Copies chunks into one that holds nothing else.
pub(super) fn joined(chunks: &[Bytes]) -> Bytes {
    let length = chunks.iter().map(Bytes::len).sum();
    let mut joined = BytesMut::with_capacity(length);
    for chunk in chunks {
        joined.extend_from_slice(chunk);
    }
    joined.freeze()
}

fn length(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{
        Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };

    use super::*;

    fn window(keep: u64, readers: usize) -> Window {
        let mut window = Window::new(keep);
        (0..readers).for_each(|_| window.enter());
        window
    }

    fn read(window: &mut Window, place: &mut u64) -> Option<Bytes> {
        window.read(place).unwrap()
    }

    #[test]
    fn while_it_is_whole_all_is_held() {
        let mut window = window(8, 1);
        let mut place = 0;
        window.push("four".into());
        assert_eq!(read(&mut window, &mut place).as_deref(), Some(&b"four"[..]));
        assert_eq!(read(&mut window, &mut place), None);
        window.push("more".into());
        assert!(window.is_whole());
        window.enter();
        assert_eq!(read(&mut window, &mut 0).as_deref(), Some(&b"fourmore"[..]));
    }

    #[test]
    fn beyond_the_cap_only_what_is_to_be_read_is_held() {
        let mut window = window(8, 1);
        let mut place = 0;
        window.push("four".into());
        read(&mut window, &mut place);
        window.push("and five".into());
        assert!(!window.is_whole());
        assert_eq!(window.held(), 8);
        assert_eq!(
            read(&mut window, &mut place).as_deref(),
            Some(&b"and five"[..])
        );
        assert_eq!(window.held(), 0);
    }

    #[test]
    fn who_stays_behind_can_be_cut_off_and_the_fastest_never() {
        let mut window = window(8, 2);
        let (mut fast, slow) = (0, 0);
        for chunk in ["four", "more", "last", "longer than is kept"] {
            window.push(chunk.into());
            while read(&mut window, &mut fast).is_some() {}
            window.cut_off();
        }
        assert_eq!(window.held(), 0);
        assert_eq!(window.read(&mut { slow }), Err(Behind));
        window.leave(slow);
        assert!(window.has_readers());
        window.leave(fast);
        assert!(!window.has_readers());
    }

    #[test]
    fn it_is_full_until_the_slowest_has_read_on() {
        let mut window = window(8, 2);
        let (mut fast, mut slow) = (0, 0);
        window.push("three ".into());
        for chunk in ["four ", "six "] {
            assert!(!window.is_full());
            window.push(chunk.into());
            while read(&mut window, &mut fast).is_some() {}
            assert!(window.is_full());
            read(&mut window, &mut slow);
        }
        assert!(!window.is_full());
    }

    #[test]
    fn a_million_small_chunks_are_held_in_few() {
        let mut window = window(1 << 20, 1);
        for byte in 0..1_000_000_u32 {
            window.push(Bytes::copy_from_slice(&byte.to_le_bytes()[..1]));
        }
        assert!(window.chunks.len() < 100, "{}", window.chunks.len());
        let body = joined(&window.chunks());
        assert!(
            body.iter()
                .zip(0_u32..)
                .all(|(byte, n)| *byte == n.to_le_bytes()[0])
        );
        assert_eq!(body.len(), 1_000_000);
    }

    /// What happens to a window.
    #[derive(Clone, Debug)]
    enum Event {
        Push(usize),
        Read(usize),
        Leave(usize),
        CutOff,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (1_usize..40).prop_map(Event::Push),
            any::<usize>().prop_map(Event::Read),
            any::<usize>().prop_map(Event::Read),
            any::<usize>().prop_map(Event::Leave),
            Just(Event::CutOff),
        ];
        vec(event, 0..200)
    }

    proptest! {
        #[test]
        fn each_reads_a_prefix_and_no_more_is_held_than_may_be(
            events in events(),
            keep in 0_u64..200,
        ) {
            let (mut window, mut cuts) = (window(keep, 4), false);
            let mut body = Vec::new();
            let mut readers: Vec<(u64, Vec<u8>)> = vec![(0, Vec::new()); 4];
            for event in events {
                match event {
                    Event::CutOff => {
                        cuts |= window.is_full();
                        window.cut_off();
                        prop_assert!(!window.is_full());
                    }
                    Event::Push(_) if window.is_full() => {}
                    Event::Push(length) => {
                        let data: Vec<u8> = (0..length).map(|n| (body.len() + n) as u8).collect();
                        body.extend_from_slice(&data);
                        window.push(data.into());
                        let most = keep + length as u64;
                        prop_assert!(window.held() <= most, "{} held", window.held());
                    }
                    Event::Leave(_) if readers.len() < 2 => {}
                    Event::Leave(index) => {
                        let (place, _) = readers.swap_remove(index % readers.len());
                        window.leave(place);
                    }
                    Event::Read(index) => {
                        let index = index % readers.len();
                        let (place, read) = &mut readers[index];
                        match window.read(place) {
                            Ok(data) => read.extend_from_slice(&data.unwrap_or_default()),
                            Err(Behind) => prop_assert!(cuts),
                        }
                        prop_assert_eq!(&body[..read.len()], &read[..]);
                        prop_assert_eq!(*place, read.len() as u64);
                    }
                }
            }
            // The places are those of the readers that were not cut off.
            let standing = readers.iter().filter(|(place, _)| *place >= window.start()).count();
            prop_assert_eq!(window.places.values().sum::<usize>(), standing);
            if window.is_whole() {
                prop_assert_eq!(joined(&window.chunks()), body);
            }
        }
    }
}
