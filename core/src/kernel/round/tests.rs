use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// Merges rows with their weights.
pub(crate) fn merged(formula: Formula, rows: &[(Vec<f32>, u64)]) -> Vec<f32> {
    merged_from(formula, rows, vec![f32::NAN; rows[0].0.len()])
}

/// The same, from the content of the destination.
pub(crate) fn merged_from(formula: Formula, rows: &[(Vec<f32>, u64)], mut into: Vec<f32>) -> Vec<f32> {
    let mut work = crate::Storage::zeroed(formula.work_bytes(rows.len()));
    let work = work.words_mut();
    // The remains of an earlier round.
    work.fill(u32::MAX);
    rows.iter().enumerate().for_each(|(row, (_, weight))| hold(work, row, *weight));
    run(formula, |row| &rows[row].0[..], rows.len(), work, &mut into);
    into
}

/// Formulas of all kinds.
pub(crate) fn formulas() -> Vec<Formula> {
    let trims = [0, 1, 2, u32::MAX].map(|trim| Formula::Trimmed { trim });
    let krum = [(0, 1), (1, 1), (1, 2), (0, 9)].map(|(faulty, best)| Formula::Krum { faulty, best });
    trims.into_iter().chain(krum).chain([Formula::NormClip, Formula::Adasum, Formula::Radial]).collect()
}

/// A formula that goes on from the content of the destination.
const CENTRED: Formula = Formula::CentredClip { radius: 2.0, iterations: 2 };

const VOTE: Formula = Formula::Vote { length: 0.25 };

/// The same with a radius within which sums of large numbers cancel, so that their order matters.
const WIDE: Formula = Formula::CentredClip { radius: 1e35, iterations: 1 };

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
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

    /// The same bits in any order.
    #[test]
    fn the_result_does_not_depend_on_the_order((rows, shuffled) in
        rows().prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())))
    {
        for formula in formulas().into_iter().filter(|formula| *formula != Formula::Adasum).chain([CENTRED, WIDE, VOTE]) {
            let zeros = || vec![0.0; rows[0].0.len()];
            let (one, other) = (merged_from(formula, &rows, zeros()), merged_from(formula, &shuffled, zeros()));
            prop_assert_eq!(bits(&one), bits(&other), "{:?}", formula);
        }
    }

    /// A vote is the majority of the signs; a tie goes back on the last result. A row of any size is one vote: where more
    /// than f of the others agree beyond a tie, f more rows change nothing.
    #[test]
    fn a_vote_is_the_majority_of_the_signs(rows in rows(), bad in prop::collection::vec(-3e38f32..3e38, 0..4)) {
        let last: Vec<f32> = (0..rows[0].0.len()).map(|i| [0.25, -0.25, 0.0][i % 3]).collect();
        let got = merged_from(VOTE, &rows, last.clone());
        let mut all = rows.clone();
        all.extend(bad.iter().map(|bad| (vec![*bad; last.len()], 4)));
        let others = merged_from(VOTE, &all, last.clone());
        for i in 0..got.len() {
            let minus = rows.iter().filter(|(x, _)| x[i] < 0.0).count();
            let margin = (rows.len() - minus).cast_signed() - minus.cast_signed();
            let expected = match margin {
                0 if last[i] > 0.0 => -0.25,
                0.. => 0.25,
                _ => -0.25,
            };
            prop_assert_eq!(got[i], expected, "{} of {} at {}", minus, rows.len(), i);
            if margin.unsigned_abs() > bad.len() {
                prop_assert_eq!(others[i], got[i], "{} bad ones against {}", bad.len(), margin);
            }
        }
    }

    /// A contribution of any size moves an element only within the range of the other contributions.
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

    /// One contribution is the result, bit for bit.
    #[test]
    fn a_single_contribution_is_the_result(rows in rows()) {
        for formula in formulas() {
            prop_assert_eq!(bits(&merged(formula, &rows[..1])), bits(&rows[0].0), "{:?}", formula);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One row moves the result of an iteration by at most `radius` times its share of the examples, so two bad
    /// ones in its place differ by twice that.
    #[test]
    fn a_row_moves_the_centre_by_its_share_of_the_radius(rows in rows(), bad in -3e38f32..3e38) {
        let len = rows[0].0.len();
        let with = |x: f32| {
            let mut all = rows.clone();
            all.push((vec![x; len], 4));
            merged_from(Formula::CentredClip { radius: 2.0, iterations: 1 }, &all, vec![0.5; len])
        };
        let share = 4.0 / (4 + rows.iter().map(|(_, weight)| weight).sum::<u64>()) as f64;
        let moved: Vec<f32> = with(bad).iter().zip(with(0.5)).map(|(a, b)| a - b).collect();
        // With the centre itself in its place, nothing moves because of it. Results are rounded to floats.
        prop_assert!(norm(&moved) <= 2.0 * share * (1.0 + 1e-5) + 1e-5, "{} for {share}", norm(&moved));
    }

    /// Without a limit, one iteration ends at the mean, wherever it begins.
    #[test]
    fn a_centre_without_a_limit_is_the_mean(rows in rows(), from in -1f32..1.0) {
        let len = rows[0].0.len();
        let formula = Formula::CentredClip { radius: f32::INFINITY, iterations: 1 };
        let total: f64 = rows.iter().map(|(_, weight)| *weight as f64).sum();
        for (i, got) in merged_from(formula, &rows, vec![from; len]).into_iter().enumerate() {
            let mean: f64 = rows.iter().map(|(x, weight)| f64::from(x[i]) * *weight as f64 / total).sum();
            let size = rows.iter().map(|(x, _)| f64::from(x[i]).abs()).fold(1.0, f64::max);
            prop_assert!((f64::from(got) - mean).abs() <= 1e-6 * size, "{got}, expected {mean}");
        }
    }

    /// The contributions of `faulty` workers are not taken if the other contributions are near to each other.
    #[test]
    fn krum_takes_rows_that_have_near_neighbours(
        near in prop::collection::vec(prop::collection::vec(-1f32..1.0, 5), 5..9), bad in -3e38f32..3e38)
    {
        prop_assume!(bad.abs() > 100.0);
        let mut rows: Vec<_> = near.into_iter().map(|x| (x, 1)).collect();
        rows.insert(2, (vec![bad; 5], 1_000_000));
        rows.insert(0, (vec![-bad; 5], 1_000_000));
        let n = rows.len() as u32;
        for best in [1, 2, n - 2, n] {
            let got = merged(Formula::Krum { faulty: 2, best }, &rows);
            prop_assert!(got.iter().all(|x| x.abs() <= 1.0), "{best}: {got:?}");
        }
        let one = merged(Formula::Krum { faulty: 2, best: 1 }, &rows);
        prop_assert!(rows.iter().any(|(x, _)| *x == one));
    }
}

/// Scores by hand: of 0, 1, 3, 7 and 100 with one faulty, two neighbours count, and 1 has 1 and 4, less than 0 with 1 and 9.
#[test]
fn krum_sums_squared_distances_to_the_nearest() {
    let rows = [7.0f32, 0.0, 100.0, 3.0, 1.0].map(|x| (vec![x], 1));
    let krum = |best| merged(Formula::Krum { faulty: 1, best }, &rows)[0];
    assert_eq!([krum(1), krum(2), krum(3), krum(4)], [1.0, 0.5, 4.0 / 3.0, 2.75]);
    // All that come but the faulty one, for any number asked for; of two, both.
    assert_eq!((krum(9), merged(Formula::Krum { faulty: 1, best: 1 }, &rows[..2])), (2.75, vec![3.5]));
    // With too few neighbours for one faulty, none counts as such: 0 and 7 have the nearest neighbour at 7, 100 at 93.
    assert_eq!(merged(Formula::Krum { faulty: 1, best: 2 }, &rows[..3]), [3.5]);
}

/// Equal contributions give one of them, orthogonal ones their sum, for any power of two.
#[test]
fn adasum_adds_what_is_orthogonal_and_averages_what_is_parallel() {
    for n in [2usize, 4, 8] {
        let equal = vec![(vec![0.3f32, -7.0, 1e-3], 1); n];
        assert_eq!(merged(Formula::Adasum, &equal), equal[0].0);
        let unit = |at: usize| (0..n).map(|i| if i == at { at as f32 + 0.5 } else { 0.0 }).collect::<Vec<f32>>();
        let orthogonal: Vec<_> = (0..n).map(|at| (unit(at), 1 + at as u64)).collect();
        let sum: Vec<f32> = (0..n).map(|at| at as f32 + 0.5).collect();
        assert_eq!(merged(Formula::Adasum, &orthogonal), sum);
    }
    // Of (2, 0) and (1, 1), the products are 4, 2 and 2: 3/4 of the first and 1/2 of the second. A third row is paired
    // with that.
    let rows = [(vec![2.0f32, 0.0], 1), (vec![1.0, 1.0], 5), (vec![0.0, 0.0], 1)];
    assert_eq!((merged(Formula::Adasum, &rows[..2]), merged(Formula::Adasum, &rows)), (vec![2.0, 0.5], vec![2.0, 0.5]));
}

/// A node of a tree of pairs merges in turn. Nodes of the binomial tree over 2, 4 and 8 rows end with what one kernel over
/// all rows makes, up to the rounding of the results in between.
#[test]
fn pairs_on_a_tree_are_those_of_one_kernel() {
    let mut random = 1u32;
    let mut float = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) as f32 / 32768.0 - 1.0
    };
    for n in [1usize, 2, 3, 4, 5, 7, 8] {
        let rows: Vec<(Vec<f32>, u64)> = (0..n).map(|_| ((0..300).map(|_| float()).collect(), 1)).collect();
        let mut results: Vec<Vec<f32>> = rows.iter().map(|(x, _)| x.clone()).collect();
        for at in (0..n).rev() {
            let most = if at == 0 { usize::BITS } else { at.trailing_zeros() };
            let children = (0..most.min(4)).map(|index| at + (1 << index)).filter(|child| *child < n);
            let inputs: Vec<Vec<f32>> =
                core::iter::once(at).chain(children).map(|index| results[index].clone()).collect();
            let inputs: Vec<&[f32]> = inputs.iter().map(|input| &input[..]).collect();
            adasum::in_turn(&mut results[at], &inputs);
        }
        let expected = merged(Formula::Adasum, &rows);
        for (got, expected) in results[0].iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-5, "{n}: {got}, expected {expected}");
        }
    }
    // Equal rows give one of them. Orthogonal rows are added up, in any number.
    let equal = [0.3f32, -7.0, 1e-3];
    let mut into = [f32::NAN; 3];
    // What is left of rows that have cancelled counts as zero, however it is rounded: the third row is the result.
    let cancelled = [vec![0.1f32, 0.3], vec![-0.1, -0.300_000_1], vec![0.7, -0.2]];
    let rows: Vec<_> = cancelled.iter().map(|row| (row.clone(), 1)).collect();
    for (got, expected) in merged(Formula::Adasum, &rows).into_iter().zip([0.7f32, -0.2]) {
        assert!((got - expected).abs() < 1e-6, "{got}");
    }
    let mut zero = [1.0f32; 2];
    adasum::in_turn(&mut zero, &[&cancelled[0], &cancelled[1]]);
    assert_eq!(zero, [0.0; 2]);
    adasum::in_turn(&mut into, &[&equal[..]; 4]);
    assert_eq!(into, equal);
    adasum::in_turn(&mut into, &[&[2.0, 0.0, 0.0], &[0.0, 0.5, 0.0], &[0.0, 0.0, -3.0]]);
    assert_eq!(into, [2.0, 0.5, -3.0]);
}

/// The length is the mean length, equal rows are their own result, rows of zeros do not count, and
/// directions that cancel are no division by zero.
#[test]
fn a_radial_mean_has_the_mean_length() {
    let rows = [(vec![3.0f32, 0.0], 1), (vec![0.0, 5.0], 1), (vec![0.0, 0.0], 9)];
    let got = merged(Formula::Radial, &rows);
    assert!(norm(&[got[0] - 8f32.sqrt(), got[1] - 8f32.sqrt()]) < 1e-6, "{got:?}");
    let equal = [(vec![3.0f32, 4.0], 1), (vec![3.0, 4.0], 7)];
    assert!(norm(&[merged(Formula::Radial, &equal)[0] - 3.0]) < 1e-6);
    assert_eq!(merged(Formula::Radial, &[(vec![1.0f32, 0.0], 1), (vec![-1.0, 0.0], 1)]), [0.0, 0.0]);
    assert_eq!(merged(Formula::Radial, &[(vec![1.0f32, 0.0], 3), (vec![-1.0, 0.0], 3), (vec![0.0; 2], 1)]), [0.0, 0.0]);
}

/// Of two contributions, nothing can be cut: the mean; with a limit, the larger one is scaled to the mean norm.
#[test]
fn two_contributions_are_defined() {
    let rows = [(vec![1.0f32, 0.0], 1), (vec![0.0, 3.0], 3)];
    for trim in [0, 1, u32::MAX] {
        assert_eq!(merged(Formula::Trimmed { trim }, &rows), [0.5, 1.5]);
    }
    assert_eq!(merged(Formula::NormClip, &rows), [0.25, 1.5]);
}

/// Without anything to clip or to cut, the mean.
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
