//! Owns the search for texts in a stream of bytes, and puts others in their place, however the stream is cut into pieces.
//!
//! No more is held back than what may still become one of the texts: an event of a server's that ends in something else is passed on
//! as it came. One that happens to end in the first bytes of a text would wait for ever; so who sees that nothing comes can have up to
//! [`SHOWN_MAX`] bytes, and if they do become the text after all, the rest is still replaced.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::secret::Secret;

/// What is shown of a text that has not come whole. Chance makes no message end in more.
const SHOWN_MAX: usize = 4;

/// One text, and what takes its place.
#[derive(Debug, Clone)]
pub(super) struct Swap {
    pub(super) from: Secret,
    pub(super) to: Secret,
    /// Which secret it is about.
    pub(super) secret: usize,
}

impl Swap {
    /// The text is not empty, so that each look gets on.
    pub(super) fn new(secret: usize, from: &[u8], to: &[u8]) -> Option<Self> {
        let made = |bytes: &[u8]| Secret::made(bytes.to_vec());
        (!from.is_empty()).then(|| Self { from: made(from), to: made(to), secret })
    }

    /// Whether a text may become a much longer one.
    pub(super) fn grows(&self) -> bool {
        self.to.expose().len() > 8 * self.from.expose().len()
    }

    /// The same, with something as long as what it takes the place of.
    pub(super) fn as_long(&self) -> Self {
        let mut to = self.to.expose().to_vec();
        to.resize(self.from.expose().len(), b'*');
        Self { from: self.from.clone(), to: Secret::made(to), secret: self.secret }
    }
}

/// Replaces texts in a stream: the first one that matches, and the longest of those that begin there.
#[derive(Debug)]
pub(super) struct Replacer {
    swaps: Arc<[Swap]>,
    begins: [bool; 256],
    held: Held,
    /// How much of it was passed on all the same.
    shown: usize,
    found: Option<usize>,
}

/// What may become one of the texts.
struct Held(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

enum Look<'a> {
    /// Nothing begins here.
    Nothing,
    Found(&'a Swap),
    /// More bytes will tell.
    Open,
}

impl Replacer {
    pub(super) fn new(swaps: Arc<[Swap]>) -> Self {
        let mut begins = [false; 256];
        for first in swaps.iter().filter_map(|swap| swap.from.expose().first()) {
            begins[usize::from(*first)] = true;
        }
        Self { swaps, begins, held: Held(Zeroizing::new(Vec::new())), shown: 0, found: None }
    }

    /// Takes the next piece; the result is what can be passed on.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        if self.held.0.is_empty() {
            return self.run(piece, false);
        }
        let mut all = std::mem::take(&mut self.held.0);
        all.extend_from_slice(piece);
        self.run(&all, false)
    }

    /// What is left at the end.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held.0);
        self.run(&held, true)
    }

    /// What is held back, if nothing more comes for now and it is short.
    pub(super) fn show(&mut self) -> Vec<u8> {
        if !self.can_show() {
            return Vec::new();
        }
        let shown = self.held.0[self.shown..].to_vec();
        self.shown = self.held.0.len();
        shown
    }

    /// Whether there is something to show.
    pub(super) fn can_show(&self) -> bool {
        self.held.0.len() > self.shown && self.held.0.len() <= SHOWN_MAX
    }

    /// The secret that was found last, once.
    pub(super) fn found(&mut self) -> Option<usize> {
        self.found.take()
    }

    /// The whole of a text, and which secret was found last in it.
    pub(super) fn whole(swaps: Arc<[Swap]>, text: &[u8]) -> (Vec<u8>, Option<usize>) {
        let mut replacer = Self::new(swaps);
        let whole = replacer.run(text, true);
        (whole, replacer.found)
    }

    fn run(&mut self, mut data: &[u8], is_end: bool) -> Vec<u8> {
        let mut passed = Vec::with_capacity(data.len());
        // So many bytes at the beginning of `data` were passed on before.
        let mut shown = std::mem::take(&mut self.shown);
        while !data.is_empty() {
            let plain = data.iter().position(|byte| self.begins[usize::from(*byte)]).unwrap_or(data.len());
            let (length, to) = match self.look(&data[plain..], is_end) {
                _ if plain > 0 => (plain, None),
                Look::Nothing => (1, None),
                Look::Found(swap) => (swap.from.expose().len(), Some(swap.clone())),
                Look::Open => {
                    self.held.0.extend_from_slice(data);
                    self.shown = shown;
                    break;
                }
            };
            let (part, rest) = data.split_at(length);
            let part = to.as_ref().map_or(part, |swap| swap.to.expose());
            passed.extend_from_slice(&part[shown.min(part.len())..]);
            shown = shown.saturating_sub(length);
            self.found = to.map(|swap| swap.secret).or(self.found);
            data = rest;
        }
        passed
    }

    fn look(&self, data: &[u8], is_end: bool) -> Look<'_> {
        let mut longest: Option<&Swap> = None;
        for swap in &*self.swaps {
            let from = swap.from.expose();
            if data.starts_with(from) {
                if longest.is_none_or(|other| other.from.expose().len() < from.len()) {
                    longest = Some(swap);
                }
            } else if !is_end && from.starts_with(data) {
                return Look::Open;
            }
        }
        longest.map_or(Look::Nothing, Look::Found)
    }
}

/// Whether `text` has `part` in it.
pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.len() >= part.len() && text.windows(part.len().max(1)).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn swaps(pairs: &[(&str, &str)]) -> Arc<[Swap]> {
        pairs.iter().filter_map(|(from, to)| Swap::new(0, from.as_bytes(), to.as_bytes())).collect()
    }

    fn whole(pairs: &[(&str, &str)], text: &str) -> String {
        String::from_utf8(Replacer::whole(swaps(pairs), text.as_bytes()).0).unwrap()
    }

    #[test]
    fn the_first_and_longest_text_is_replaced() {
        assert_eq!(whole(&[("abc", "X")], "ababcabc"), "abXX");
        assert_eq!(whole(&[("ab", "1"), ("abc", "2")], "ab abc abd"), "1 2 1d");
        assert_eq!(whole(&[("abcd", "1"), ("bc", "2")], "abce"), "a2e");
        assert_eq!(whole(&[("aa", "x")], "aaaaa"), "xxa");
        assert_eq!(whole(&[], "abc"), "abc");
    }

    #[test]
    fn only_what_may_become_a_text_is_held_back() {
        let mut replacer = Replacer::new(swaps(&[("secret", "hidden")]));
        assert_eq!(replacer.push(b"data: 1\n\n"), b"data: 1\n\n");
        assert_eq!(replacer.push(b"sec"), b"");
        assert_eq!(replacer.push(b"tor"), b"sector");
        assert_eq!(replacer.push(b"se"), b"");
        assert_eq!(replacer.push(b"cret!"), b"hidden!");
        assert_eq!(replacer.push(b"secr"), b"");
        assert_eq!(replacer.finish(), b"secr");
    }

    #[test]
    fn what_waits_can_be_shown_and_its_rest_is_still_replaced() {
        let mut replacer = Replacer::new(swaps(&[("secret", "0123456789")]));
        assert_eq!(replacer.push(b"a sec"), b"a ");
        assert_eq!((replacer.show(), replacer.show()), (b"sec".to_vec(), vec![]));
        assert_eq!(replacer.push(b"r"), b"");
        assert_eq!(replacer.show(), b"r");
        assert_eq!(replacer.push(b"et and s"), b"456789 and ");
        assert_eq!(replacer.found(), Some(0));
        assert_eq!(replacer.show(), b"s");
        assert_eq!(replacer.push(b"o sesecr"), b"o se");
        assert_eq!(replacer.push(b"e"), b"");
        assert!(!replacer.can_show());
        assert_eq!(replacer.finish(), b"secre");
        assert_eq!(replacer.found(), None);
    }

    #[test]
    fn a_replacement_can_be_as_long_as_what_it_replaces() {
        let long = Swap::new(0, b"a long secret", b"hole").unwrap().as_long();
        let short = Swap::new(0, b"key", b"placeholder").unwrap().as_long();
        assert_eq!((long.to.expose(), short.to.expose()), (&b"hole*********"[..], &b"pla"[..]));
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_the_result_is_the_same(
            text in "[ab]{0,60}",
            froms in prop::collection::vec("[ab]{1,6}", 0..4),
            cuts in prop::collection::vec(0_usize..60, 0..8),
        ) {
            let swaps: Arc<[Swap]> =
                froms.iter().filter_map(|from| Swap::new(0, from.as_bytes(), b"-")).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut replacer = Replacer::new(Arc::clone(&swaps));
            let mut passed = Vec::new();
            for cut in cuts.windows(2) {
                passed.extend(replacer.push(&text.as_bytes()[cut[0]..cut[1]]));
            }
            passed.extend(replacer.finish());
            prop_assert_eq!(&passed, &Replacer::whole(swaps, text.as_bytes()).0);
            for from in froms {
                prop_assert!(!contains(&passed, from.as_bytes()));
            }
        }
    }
}
