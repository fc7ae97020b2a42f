//! Properties of lists of entries: round trips, sizes, canonical form, and one case per error.

use alloc::vec;
use alloc::vec::Vec;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn words_of(entries: &[Entry]) -> Vec<u32> {
    let mut words = vec![0; 2 * entries.len()];
    let mut at = 0;
    for entry in entries {
        at += entry.write(&mut words[at..]);
    }
    words.truncate(at);
    words
}

fn coded(entries: &[Entry], len: usize) -> (Form, Vec<u32>) {
    let mut body = vec![0xdead_beef; words_max(len)];
    let (form, words) = write(&words_of(entries), entries.len() as u32, len, &mut body);
    body.truncate(words);
    (form, body)
}

fn decoded(form: Form, nnz: u32, len: usize, body: &[u32]) -> Result<Vec<Entry>, BodyError> {
    Reader::new(form, nnz, len, body)?.entries().collect()
}

/// Lists over up to 3,000 elements: sparse or dense, with single or several quanta.
pub(crate) fn lists() -> impl Strategy<Value = (usize, Vec<Entry>)> {
    let count = prop_oneof![8 => -1i32..=1, 1 => -4i32..=4, 1 => -COUNT_MAX..=COUNT_MAX];
    let single = prop_oneof![-1i32..=1];
    (1usize..3000, any::<bool>(), 0usize..4).prop_flat_map(move |(len, several, spread)| {
        let count = if several { count.clone().boxed() } else { single.clone().boxed() };
        let entries = [len / 300, len / 20, len, 2 * len][spread];
        prop::collection::vec((0..len as u32, count), 0..=entries).prop_map(move |entries| {
            let sorted: BTreeMap<u32, i32> = entries.into_iter().filter(|(_, count)| *count != 0).collect();
            (len, sorted.into_iter().map(|(index, count)| Entry { index, count }).collect())
        })
    })
}

/// A list of several blocks is one whole: its form follows from all of them.
#[test]
fn the_form_of_a_list_follows_from_all_blocks() {
    // Large counts in the first block only.
    let large = |index: u32| Entry { index, count: if index < 128 { COUNT_MAX } else { 1 } };
    let entries: Vec<Entry> = (0..192).map(large).collect();
    let (form, body) = coded(&entries, 192);
    assert_eq!((form, decoded(form, 192, 192, &body)), (Form::Dense16, Ok(entries)));
    // Each block alone would be shortest in the Rice form.
    let entries: Vec<Entry> = (0..1024).map(|index| Entry { index, count: 1 }).collect();
    assert_eq!(coded(&entries, 1024).0, Form::Dense2);
    let mut body = vec![0; words_max(1024)];
    let bits = rice::write(&words_of(&entries), false, &mut body).unwrap();
    let error = BodyError::Form { expected: Form::Dense2, got: Form::Rice };
    assert_eq!(decoded(Form::Rice, 1024, 1024, &body[..bits.div_ceil(32) as usize]), Err(error));
}

proptest! {
    #[test]
    fn a_written_list_is_read_back((len, entries) in lists()) {
        let (form, body) = coded(&entries, len);
        prop_assert_eq!(decoded(form, entries.len() as u32, len, &body), Ok(entries));
    }

    /// No longer than the dense forms, and no longer than the worst case of Rice coding with the best k per
    /// block.
    #[test]
    fn a_list_is_no_longer_than_its_worst_case((len, entries) in lists()) {
        let (_, body) = coded(&entries, len);
        prop_assert!(body.len() <= words_max(len));
        if entries.iter().all(|entry| entry.count.abs() == 1) {
            prop_assert!(body.len() <= len.div_ceil(16) && body.len() <= entries.len());
            let mut bound = 0;
            let mut next = 0;
            for block in entries.chunks(BLOCK) {
                let end = block[block.len() - 1].index + 1;
                let span = u64::from(end - next) - block.len() as u64;
                let k = (0..30).map(|k| block.len() as u64 * (k + 2) + (span >> k)).min().unwrap();
                // k is the optimum for random gaps. For other gaps it costs at most 1.5 bits more per entry.
                bound += 6 + k + 3 * block.len() as u64 / 2;
                next = end;
            }
            prop_assert!(body.len() as u64 * 32 <= bound + 31);
        }
    }

    /// Decoding arbitrary words never gives an index out of range.
    #[test]
    fn any_words_fail_or_are_canonical(len in 1usize..300, nnz in 0u32..300, number in 0u32..4,
        body in prop::collection::vec(any::<u32>(), 0..40))
    {
        let form = Form::from_number(number).unwrap();
        if let Ok(entries) = decoded(form, nnz, len, &body) {
            prop_assert!(entries.iter().all(|entry| (entry.index as usize) < len));
            prop_assert_eq!(coded(&entries, len), (form, body));
        }
    }

    #[test]
    fn damaged_words_fail_or_are_canonical(
        (len, entries) in lists(), at in any::<prop::sample::Index>(), bit in 0u32..32, cut in any::<bool>())
    {
        let (form, mut body) = coded(&entries, len);
        prop_assume!(!body.is_empty());
        let at = at.index(body.len());
        if cut { body.truncate(at) } else { body[at] ^= 1 << bit }
        if let Ok(entries) = decoded(form, entries.len() as u32, len, &body) {
            prop_assert_eq!(coded(&entries, len), (form, body));
        }
    }
}

#[test]
fn each_form_is_chosen_where_it_is_the_smallest() {
    let ones =
        |indices: &mut dyn Iterator<Item = u32>| indices.map(|index| Entry { index, count: 1 }).collect::<Vec<_>>();
    assert_eq!(coded(&ones(&mut (0..0)), 1000), (Form::Rice, vec![]));
    assert_eq!(coded(&ones(&mut (0..1000).step_by(100)), 1000).0, Form::Rice);
    assert_eq!(coded(&ones(&mut (0..1000)), 1000).0, Form::Dense2);
    assert_eq!(coded(&ones(&mut core::iter::once((1 << 29) - 1)), 1 << 29).0, Form::Raw);
    let many: Vec<Entry> = (0..1000).map(|index| Entry { index, count: -COUNT_MAX }).collect();
    assert_eq!(coded(&many, 1000).0, Form::Dense16);
}

/// One case for each error of a list.
#[test]
fn errors_name_the_expected_and_the_found_value() {
    use alloc::string::ToString;
    let error = |form, nnz, len, body: &[u32]| decoded(form, nnz, len, body).unwrap_err().to_string();
    let minus = 1 << 31;
    assert_eq!(error(Form::Raw, 1, 4, &[4]), "body: expected an index below 4, got 4");
    assert_eq!(error(Form::Raw, 2, 4, &[2, 2 | minus]), "body: expected an index of at least 3, got 2");
    assert_eq!(error(Form::Raw, 2, 4, &[2]), "body: expected at most 1 entries, got 2");
    assert_eq!(error(Form::Raw, 5, 4, &[0, 1, 2, 3, 4]), "body: expected at most 4 entries, got 5");
    assert_eq!(error(Form::Rice, u32::MAX, 1 << 20, &[0]), "body: expected at most 16 entries, got 4294967295");
    assert_eq!(error(Form::Raw, 1, 4, &[1, 2]), "body: expected 4 bytes of entries, got 8");
    assert_eq!(error(Form::Raw, 1, 4, &[1 << 30]), "body: expected an index below 4, got 1073741824");
    assert_eq!(error(Form::Dense2, 1, 4, &[0b10]), "body: expected a count of at most 32767 at index 0, got more");
    assert_eq!(error(Form::Dense2, 2, 4, &[0b01]), "body: expected at most 1 entries, got 2");
    assert_eq!(error(Form::Dense2, 1, 4, &[0b0101]), "body: expected zeros after the last entry, got 0x4");
    assert_eq!(
        error(Form::Dense2, 1, 40, &[1, 0, 0]),
        "body: expected the form Rice, which is the smallest, got Dense2"
    );
    // Rice with k = 5 and one entry at index 0, for which k = 0 is the only valid parameter.
    assert_eq!(error(Form::Rice, 1, 100, &[5 | 1 << 12]), "body: expected a Rice parameter of 0, got 5");
    assert_eq!(error(Form::Rice, 1, 100, &[31]), "body: expected more bits after bit 32, got the end of the body");
    assert_eq!(error(Form::Rice, 1, 100, &[0]), "body: expected more bits after bit 32, got the end of the body");
    assert_eq!(error(Form::Rice, 1, 3, &[1 << 20]), "body: expected at most 3 zeros in a unary number, got 13");
    assert_eq!(
        error(Form::Rice, 1, 100, &[32 | 1 << 7 | 1 << 8]),
        "body: expected a count above 1 in the block from index 0, got only 1"
    );
    assert_eq!(
        error(Form::Rice, 1, 1 << 20, &[32 | 1 << 7]),
        "body: expected more bits after bit 32, got the end of the body"
    );
    let (form, good) = coded(&[Entry { index: 70, count: -3 }], 100);
    assert_eq!(form, Form::Rice);
    let pad = good.iter().enumerate().map(|(i, word)| if i + 1 == good.len() { word | minus } else { *word });
    assert!(error(form, 1, 100, &pad.collect::<Vec<_>>()).starts_with("body: expected zeros after the last entry"));
    assert_eq!(error(form, 1, 100, &[good[0], 0]), "body: expected 4 bytes of entries, got 8");
}
