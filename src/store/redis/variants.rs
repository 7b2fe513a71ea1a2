//! What varies under a primary key: a list, kept beside the responses themselves.
//!
//! ```text
//! version    1 byte
//! checksum   CRC-32C of all that follows
//! number     u32, then so many variants, the one stored last first
//! ```

use bytes::Bytes;
use http::header::{CONTENT_LANGUAGE, HeaderMap, HeaderValue};

use crate::entry::codec::wire::{Reader, Wire, field_by_field};
use crate::entry::{StoredResponse, Tagged, Variant};
use crate::semantics::date::HttpDate;
use crate::semantics::vary::{Candidate, Nominated, NormalForm, Vary, select};

const VERSION: u8 = 1;

/// The variants under a primary key that have a `Vary`.
///
/// A response without one is not listed. It stands under the primary key's own digest, and matches
/// every request that no variant matches (RFC 9111 §4.1), so its existence is found out by asking
/// for it.
///
/// Two processes that add to a list at once may lose one of the additions, which costs misses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Variants(Vec<Listed>);

/// What decides whether a variant is selected, and whether it is of use where it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    variant: Variant,
    date: HttpDate,
    content_language: Option<HeaderValue>,
    offered: bool,
}

field_by_field! {
    Listed {
        variant,
        date,
        content_language,
        offered,
    }
}

impl Variants {
    /// More variants than this are not kept under one key.
    const MAX_COUNT: usize = 32;
    /// The most that a list may take; every look-up of its key transfers it.
    const MAX_SIZE: usize = 16 * 1024;
    /// So many variants are offered to an origin, which may confirm one for another request.
    const MAX_OFFERS: usize = 4;
    /// To read a longer body, on the chance that it is confirmed, would cost more than it promises.
    const MAX_OFFERED_BODY: usize = 64 * 1024;

    /// Reads a list; `None` if the bytes are none.
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let version = u8::read(&mut reader)?;
        let checksum = u32::read(&mut reader)?;
        if version != VERSION || checksum != crc32c::crc32c(reader.as_bytes()) {
            return None;
        }
        let listed = Vec::read(&mut reader)?;
        reader.is_empty().then_some(Self(listed))
    }

    /// Writes the list, without the oldest variants if it would be too large.
    pub(super) fn encode(&mut self) -> Vec<u8> {
        self.0.truncate(Self::MAX_COUNT);
        loop {
            let mut list = Vec::new();
            self.0.write(&mut list);
            if list.len() <= Self::MAX_SIZE || self.0.pop().is_none() {
                let mut bytes = vec![VERSION];
                crc32c::crc32c(&list).write(&mut bytes);
                bytes.append(&mut list);
                return bytes;
            }
        }
    }

    /// Adds a response, in place of the one that answered the same requests.
    pub(super) fn add(&mut self, response: &StoredResponse) {
        self.0.retain(|listed| listed.variant != response.variant);
        let newest = Listed {
            variant: response.variant.clone(),
            date: response.terms.date,
            content_language: response.fields.get(CONTENT_LANGUAGE).cloned(),
            // The origin knows only the entity-tags that it gave.
            offered: response.tagged == Tagged::ByOrigin
                && response.etag().is_some()
                && response.body.len() <= Self::MAX_OFFERED_BODY,
        };
        self.0.insert(0, newest);
    }

    /// Whether a variant is listed.
    pub(super) fn contains(&self, variant: &Variant) -> bool {
        self.0.iter().any(|listed| listed.variant == *variant)
    }

    /// Returns the variant that a request selects; `None` if only a response without `Vary` can
    /// answer it.
    pub(super) fn matching(&self, request: &HeaderMap) -> Option<&Variant> {
        let nominated = Nominated::default();
        let without_vary = Candidate {
            vary: &Vary::None,
            nominated: &nominated,
            form: NormalForm::Lists,
            date: HttpDate(i64::MIN),
            content_language: None,
        };
        self.selected(self.candidates().chain([without_vary]), request)
    }

    /// Returns the variant that a request selects if there is no response without `Vary`.
    pub(super) fn next_best(&self, request: &HeaderMap) -> Option<&Variant> {
        self.selected(self.candidates(), request)
    }

    /// Returns the variant that the answer to a request will be, if it varies as the newest does.
    pub(super) fn expected(&self, request: &HeaderMap) -> Option<Variant> {
        let newest = &self.0.first()?.variant;
        let names = newest.vary.fields()?;
        Some(Variant {
            nominated: Nominated::new(names, request, newest.form),
            ..newest.clone()
        })
    }

    /// Returns the variants to be offered to the origin when a request selects none of them
    /// (RFC 9111 §4.1).
    pub(super) fn offers(&self) -> impl Iterator<Item = &Variant> {
        let offered = self.0.iter().filter(|listed| listed.offered);
        offered.map(|listed| &listed.variant).take(Self::MAX_OFFERS)
    }

    fn selected<'a>(
        &self,
        candidates: impl Iterator<Item = Candidate<'a>> + Clone,
        request: &HeaderMap,
    ) -> Option<&Variant> {
        let listed = self.0.get(select(candidates, request)?)?;
        Some(&listed.variant)
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> + Clone {
        self.0.iter().map(|listed| Candidate {
            vary: &listed.variant.vary,
            nominated: &listed.variant.nominated,
            form: listed.variant.form,
            date: listed.date,
            content_language: listed.content_language.as_ref().map(HeaderValue::as_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    /// A response to a request with this `Accept-Language`.
    fn response(language: &str, fields: &[(&str, &str)]) -> StoredResponse {
        let request = Request::get("http://a.example/").header("accept-language", language);
        let mut response = Response::builder();
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let response = response.body(Bytes::new()).unwrap();
        StoredResponse::sample(&request.body(()).unwrap(), response, &Clock::system())
    }

    fn in_language(language: &str) -> StoredResponse {
        response(
            language,
            &[("vary", "accept-language"), ("content-language", language)],
        )
    }

    fn listing(responses: &[StoredResponse]) -> Variants {
        let mut variants = Variants::default();
        responses.iter().for_each(|response| variants.add(response));
        variants
    }

    fn request(accept_language: &str) -> HeaderMap {
        let value = HeaderValue::from_str(accept_language).unwrap();
        HeaderMap::from_iter([(http::header::ACCEPT_LANGUAGE, value)])
    }

    #[test]
    fn a_request_selects_as_it_would_among_the_responses_themselves() {
        let [english, german] = ["en", "de"].map(in_language);
        let variants = listing(&[english.clone(), german.clone()]);
        assert_eq!(variants.matching(&request("en")), Some(&english.variant));
        assert_eq!(variants.matching(&request("de")), Some(&german.variant));
        // A response without `Vary` goes before one that matches by its language alone.
        assert_eq!(variants.matching(&request("de, fr;q=0.5")), None);
        assert_eq!(
            variants.next_best(&request("de, fr;q=0.5")),
            Some(&german.variant)
        );
        assert_eq!(variants.next_best(&request("fr")), None);
    }

    #[test]
    fn what_a_request_will_be_answered_with_is_told_by_how_the_newest_varies() {
        let [english, german] = ["en", "de"].map(in_language);
        let variants = listing(&[german, english]);
        let expected = |language| variants.expected(&request(language)).unwrap();
        assert_eq!(expected("fr"), in_language("fr").variant);
        assert_ne!(expected("fr"), expected("de"));
        assert_eq!(Variants::default().expected(&request("fr")), None);
    }

    #[test]
    fn a_newer_response_takes_the_place_of_the_older_and_comes_first() {
        let [english, german] = ["en", "de"].map(in_language);
        let variants = listing(&[english.clone(), german.clone(), english.clone()]);
        assert_eq!(variants, listing(&[german, english]));
    }

    #[test]
    fn the_newest_with_an_entity_tag_of_the_origin_and_a_short_body_are_offered() {
        let tagged = |language| {
            let fields = [("vary", "accept-language"), ("etag", "\"1\"")];
            response(language, &fields)
        };
        let mut long = tagged("long");
        long.body = vec![0; Variants::MAX_OFFERED_BODY + 1].into();
        let mut own = tagged("own");
        own.tagged = Tagged::ByCache;
        let responses = ["a", "b", "c", "d", "e"].map(tagged).into_iter();
        let responses: Vec<_> = responses
            .chain([in_language("untagged"), long, own])
            .collect();
        let offered: Vec<_> = ["e", "d", "c", "b"].map(|name| tagged(name).variant).into();
        let offers: Vec<_> = listing(&responses).offers().cloned().collect();
        assert_eq!(offers, offered);
    }

    #[test]
    fn the_oldest_of_too_many_or_too_large_variants_make_way() {
        let by_x = |value: &str| {
            let request = Request::get("http://a.example/")
                .header("x", value)
                .body(())
                .unwrap();
            let response = Response::builder()
                .header("vary", "x")
                .body(Bytes::new())
                .unwrap();
            StoredResponse::sample(&request, response, &Clock::system())
        };
        let many: Vec<_> = (0..33).map(|n| by_x(&n.to_string())).collect();
        let large: Vec<_> = (0..5)
            .map(|n| by_x(&format!("{n}{}", "x".repeat(4000))))
            .collect();
        for (responses, kept) in [(many, 32), (large, 4)] {
            let bytes = Bytes::from(listing(&responses).encode());
            assert!(bytes.len() <= Variants::MAX_SIZE + 5);
            let variants = Variants::decode(&bytes).unwrap();
            let newest = responses.iter().rev();
            let held = newest
                .take_while(|response| variants.contains(&response.variant))
                .count();
            assert_eq!((held, variants.0.len()), (kept, kept));
        }
        assert_eq!(listing(&[by_x(&"x".repeat(20_000))]).encode().len(), 9);
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_any_change_makes_it_none() {
        let mut variants = listing(&["en", "de"].map(in_language));
        let bytes = variants.encode();
        assert_eq!(Variants::decode(&bytes.clone().into()), Some(variants));
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert_eq!(Variants::decode(&changed.into()), None, "{place}");
            assert_eq!(
                Variants::decode(&Bytes::copy_from_slice(&bytes[..place])),
                None
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_none(list: Vec<u8>) {
            let mut sealed = vec![VERSION];
            crc32c::crc32c(&list).write(&mut sealed);
            sealed.extend_from_slice(&list);
            let _ = Variants::decode(&list.into());
            if let Some(mut variants) = Variants::decode(&sealed.into()) {
                let _ = variants.matching(&request("de"));
                variants.encode();
            }
        }
    }
}
