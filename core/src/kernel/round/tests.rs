use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// Merges rows with their weights.
pub(crate) fn merged(formula: Formula, rows: &[(Vec<f32>, u64)]) -> Vec<f32> {
    merged_from(formula, rows, vec![f32::NAN; rows[0].0.len()])
}

/// The same, from what the destination holds.
pub(crate) fn merged_from(formula: Formula, rows: &[(Vec<f32>, u64)], mut into: Vec<f32>) -> Vec<f32> {
    let mut work = crate::Storage::zeroed(work_bytes(rows.len()));
    let work = work.words_mut();
    // What an earlier round has left.
    work.fill(u32::MAX);
    rows.iter().enumerate().for_each(|(row, (_, weight))| hold(work, row, *weight));
    run(formula, |row| &rows[row].0[..], rows.len(), work, &mut into);
    into
}

/// Formulas of all kinds.
pub(crate) fn formulas() -> Vec<Formula> {
    let trims = [0, 1, 2, u32::MAX].map(|trim| Formula::Trimmed { trim });
    trims.into_iter().chain([Formula::NormClip]).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Rows of equal length, some of which are equal in part or in whole.
fn rows() -> impl Strategy<Value = Vec<(Vec<f32>, u64)>> {
    let x = prop_oneof![3 => -8f32..8.0, 1 => prop::sample::select(vec![0.0f32, -0.0, 1.0, 1e30, -1e30])];
    let lens = prop::sample::select(vec![1usize, 3, 8, BLOCK + 5]);
    (lens, 1usize..9).prop_flat_map(move |(len, count)| {
        prop::collection::vec((prop::collection::vec(x.clone(), len), 1u64..5), count)
    })
}

/// The values of an element, in ascending order.
fn column(rows: &[(Vec<f32>, u64)], i: usize) -> Vec<f64> {
    let mut column: Vec<f64> = rows.iter().map(|(x, _)| f64::from(x[i])).collect();
    column.sort_unstable_by(f64::total_cmp);
    column
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_trimmed_mean_is_the_mean_of_what_is_left(rows in rows(), trim in 0usize..4) {
        let n = rows.len();
        let cut = trim.min((n - 1) / 2);
        let got = merged(Formula::Trimmed { trim: trim as u32 }, &rows);
        let expected: Vec<f32> = (0..got.len()).map(|i| {
            let kept = &column(&rows, i)[cut..n - cut];
            (kept.iter().sum::<f64>() / kept.len() as f64) as f32
        }).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn the_median_is_the_middle_value(rows in rows()) {
        let got = merged(Formula::Trimmed { trim: u32::MAX }, &rows);
        for (i, got) in got.into_iter().enumerate() {
            let column = column(&rows, i);
            let n = column.len();
            prop_assert_eq!(got, ((column[(n - 1) / 2] + column[n / 2]) / 2.0) as f32);
        }
    }

    #[test]
    fn no_row_counts_with_more_than_the_median_norm(rows in rows()) {
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let mut norms: Vec<f64> = rows.iter().map(|(x, _)| norm(x)).collect();
        norms.sort_unstable_by(f64::total_cmp);
        let limit = (norms[(norms.len() - 1) / 2] + norms[norms.len() / 2]) / 2.0;
        let total: f64 = rows.iter().map(|(_, weight)| *weight as f64).sum();
        for (i, got) in merged(Formula::NormClip, &rows).into_iter().enumerate() {
            let scaled = |x: &[f32]| f64::from(x[i]) * (limit / norm(x).max(1e-300)).min(1.0);
            let expected: f64 = rows.iter().map(|(x, weight)| *weight as f64 / total * scaled(x)).sum();
            let size: f64 = rows.iter().map(|(x, _)| scaled(x).abs()).sum();
            prop_assert!((f64::from(got) - expected).abs() <= 1e-7 * size, "{got}, expected {expected}");
        }
    }

    /// I-117: the same bits in any order.
    #[test]
    fn the_result_does_not_depend_on_the_order((rows, shuffled) in
        rows().prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())))
    {
        for formula in formulas() {
            prop_assert_eq!(bits(&merged(formula, &rows)), bits(&merged(formula, &shuffled)), "{:?}", formula);
        }
    }

    /// I-116: a contribution of any size moves an element only within what the others say.
    #[test]
    fn one_arbitrary_row_stays_within_the_range_of_the_others(rows in rows(), bad in -3e38f32..3e38) {
        prop_assume!(rows.len() > 1);
        let mut all = rows.clone();
        all.push((vec![bad; rows[0].0.len()], 4));
        for formula in [Formula::Trimmed { trim: 1 }, Formula::Trimmed { trim: u32::MAX }] {
            for (i, got) in merged(formula, &all).into_iter().enumerate() {
                let honest = column(&rows, i);
                let range = honest[0]..=honest[honest.len() - 1];
                prop_assert!(range.contains(&f64::from(got)), "{got} is not in {range:?}");
            }
        }
    }

    /// I-118: one contribution is the result, bit for bit.
    #[test]
    fn a_single_contribution_is_the_result(rows in rows()) {
        for formula in formulas() {
            prop_assert_eq!(bits(&merged(formula, &rows[..1])), bits(&rows[0].0), "{:?}", formula);
        }
    }
}

/// I-118: of two contributions, nothing can be cut: the mean; with a limit, the larger one is scaled to the mean norm.
#[test]
fn two_contributions_are_defined() {
    let rows = [(vec![1.0f32, 0.0], 1), (vec![0.0, 3.0], 3)];
    for trim in [0, 1, u32::MAX] {
        assert_eq!(merged(Formula::Trimmed { trim }, &rows), [0.5, 1.5]);
    }
    assert_eq!(merged(Formula::NormClip, &rows), [0.25, 1.5]);
}

/// I-115: without anything to clip or to cut, the mean.
#[test]
fn contributions_of_equal_norm_are_averaged_by_their_examples() {
    let rows = [(vec![4.0f32, 0.0], 1), (vec![0.0, -4.0], 3), (vec![0.0, 4.0], 4)];
    assert_eq!(merged(Formula::NormClip, &rows), [0.5, 0.5]);
}

/// A contribution of zeros, and rounds of nothing else.
#[test]
fn contributions_of_zero_are_no_division_by_zero() {
    for formula in formulas() {
        assert_eq!(merged(formula, &[(vec![0.0f32; 3], 2), (vec![0.0; 3], 1), (vec![-0.0; 3], 1)]), [0.0; 3]);
    }
    assert_eq!(merged(Formula::NormClip, &[(vec![0.0f32], 1), (vec![0.0], 1), (vec![7.0], 1)]), [0.0]);
}
