//! Threshold quantisation with residual (Strom 2015, section 2), in a plain encoding: one 32-bit word per
//! quantum, the sign in the top bit, the index below.
//!
//! ```text
//! for each i:  acc = residual[i] + update[i]
//!              if acc >= tau:   emit (i, +);  residual[i] = acc - tau
//!              elif acc <= -tau: emit (i, -);  residual[i] = acc + tau
//!              else:                          residual[i] = acc
//! ```
//! With tau a power of two, `acc ∓ tau` is exact wherever ulp(acc) <= tau, so that what is sent plus what is left
//! equals `fl(residual + update)` exactly. One quantum per element and message: an update that keeps exceeding
//! tau lets the residual grow. A body is canonical: its indices rise strictly.

use core::fmt;

/// What an encoder did.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Words written.
    pub entries: u32,
    /// Sum of squares of the residual.
    pub residual: f64,
}

/// Set in the word of a negative quantum.
const NEGATIVE: u32 = 1 << 31;

/// Encodes `update + residual`; `body` needs as many words as there are floats.
pub fn encode(update: &[f32], residual: &mut [f32], body: &mut [u32], tau: f32) -> Encoded {
    assert_eq!(update.len(), residual.len());
    for (residual, update) in residual.iter_mut().zip(update) {
        *residual += update;
    }
    take(residual, body, tau, tau)
}

/// Takes one quantum out of every element whose magnitude is at least tau/2.
pub fn flush(residual: &mut [f32], body: &mut [u32], tau: f32) -> Encoded {
    take(residual, body, tau, tau / 2.0)
}

fn take(residual: &mut [f32], body: &mut [u32], tau: f32, from: f32) -> Encoded {
    assert!(residual.len() <= body.len() && residual.len() < NEGATIVE as usize);
    let mut entries = 0;
    let mut squares = 0.0;
    for (i, r) in residual.iter_mut().enumerate() {
        if r.abs() >= from {
            let sign = r.to_bits() & NEGATIVE;
            *r -= f32::from_bits(tau.to_bits() | sign);
            body[entries] = sign | i as u32;
            entries += 1;
        }
        squares += f64::from(*r) * f64::from(*r);
    }
    Encoded { entries: entries as u32, residual: squares }
}

/// Adds the quanta of a body to the ledger. Checks the whole body before it touches the ledger.
///
/// # Errors
/// When the body is not canonical, names an index that the ledger does not have, or a count would overflow.
pub fn decode(body: &[u8], ledger: &mut [i32]) -> Result<(), BodyError> {
    let (words, rest) = body.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(BodyError::Words { got: body.len() as u32 });
    }
    let entries = || words.iter().map(|word| u32::from_le_bytes(*word)).map(|word| (word & !NEGATIVE, word & NEGATIVE));
    let mut floor = 0;
    for (index, sign) in entries() {
        if index < floor {
            return Err(BodyError::Order { expected: floor, got: index });
        }
        floor = index + 1;
        let Some(count) = ledger.get(index as usize) else {
            return Err(BodyError::Index { limit: ledger.len() as u32, got: index });
        };
        if *count == (if sign == 0 { i32::MAX } else { i32::MIN }) {
            return Err(BodyError::Ledger { index });
        }
    }
    for (index, sign) in entries() {
        ledger[index as usize] += if sign == 0 { 1 } else { -1 };
    }
    Ok(())
}

/// `into[i] = base[i] - tau * ledger[i]`: the product is exact while fewer than 2^24 quanta have gathered, so
/// replicas with equal ledgers are equal bit for bit.
pub fn materialise(into: &mut [f32], base: &[f32], ledger: &[i32], tau: f32) {
    assert!(into.len() == base.len() && into.len() == ledger.len());
    for ((into, base), count) in into.iter_mut().zip(base).zip(ledger) {
        *into = base - tau * *count as f32;
    }
}

/// Bytes that are no body of quanta.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum BodyError {
    /// Not whole words.
    Words { got: u32 },
    /// Indices do not rise.
    Order { expected: u32, got: u32 },
    /// No such parameter.
    Index { limit: u32, got: u32 },
    /// The ledger's count of this parameter would overflow.
    Ledger { index: u32 },
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words { got } => write!(f, "quanta: expected whole 32-bit words, got {got} bytes"),
            Self::Order { expected, got } => write!(f, "quanta: expected an index of at least {expected}, got {got}"),
            Self::Index { limit, got } => write!(f, "quanta: expected an index below {limit}, got {got}"),
            Self::Ledger { index } => write!(f, "quanta: expected a count within 32 bits at index {index}, got more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const TAU: f32 = 1.0 / 64.0;

    /// The paper's loop, as it stands.
    fn oracle(update: &[f32], residual: &mut [f32]) -> Vec<u32> {
        let mut body = Vec::new();
        for i in 0..update.len() {
            let acc = residual[i] + update[i];
            residual[i] = acc;
            if acc >= TAU {
                body.push(i as u32);
                residual[i] = acc - TAU;
            } else if acc <= -TAU {
                body.push(i as u32 | NEGATIVE);
                residual[i] = acc + TAU;
            }
        }
        body
    }

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    proptest! {
        #[test]
        fn encodes_as_the_oracle_does(updates in prop::collection::vec(prop::collection::vec(-0.05f32..0.05, 40), 1..20)) {
            let (mut ours, mut theirs) = (vec![0.0; 40], vec![0.0; 40]);
            for update in updates {
                let mut body = vec![u32::MAX; 40];
                let encoded = encode(&update, &mut ours, &mut body, TAU);
                prop_assert_eq!(&body[..encoded.entries as usize], &oracle(&update, &mut theirs)[..]);
                prop_assert_eq!(&ours, &theirs);
                let squares: f64 = ours.iter().map(|r| f64::from(*r) * f64::from(*r)).sum();
                prop_assert_eq!(encoded.residual, squares);
            }
        }

        /// I-40: what was sent plus what is left is what came in, exactly (integers of 2^-10, so that the sum of
        /// inputs does not round either). I-41: the residual stays below tau where the sum stays below 2 tau.
        #[test]
        fn nothing_is_lost(updates in prop::collection::vec(prop::collection::vec(-40i32..40, 10), 1..60)) {
            let (mut residual, mut sent, mut total) = (vec![0.0f32; 10], vec![0i32; 10], [0i32; 10]);
            for update in updates {
                let floats: Vec<f32> = update.iter().map(|x| *x as f32 / 1024.0).collect();
                let before: Vec<f32> = residual.iter().zip(&floats).map(|(r, x)| r + x).collect();
                let mut body = vec![0; 10];
                let encoded = encode(&floats, &mut residual, &mut body, TAU);
                decode(&bytes(&body[..encoded.entries as usize]), &mut sent).unwrap();
                for i in 0..10 {
                    total[i] += update[i];
                    prop_assert_eq!(sent[i] as f32 * TAU + residual[i], total[i] as f32 / 1024.0);
                    let bound = if before[i].abs() < 2.0 * TAU { TAU } else { before[i].abs() - TAU };
                    prop_assert!(residual[i].abs() <= bound);
                }
            }
            // A leaver's last message leaves at most half a quantum of what was below tau.
            let before = residual.clone();
            let mut body = vec![0; 10];
            let encoded = flush(&mut residual, &mut body, TAU);
            decode(&bytes(&body[..encoded.entries as usize]), &mut sent).unwrap();
            for i in 0..10 {
                prop_assert_eq!(sent[i] as f32 * TAU + residual[i], total[i] as f32 / 1024.0);
                if before[i].abs() <= TAU { prop_assert!(residual[i].abs() <= TAU / 2.0); }
            }
        }

        /// I-42: below tau nothing is sent and the residual is the sum.
        #[test]
        fn below_tau_nothing_is_sent(update in prop::collection::vec(-0.0156f32..0.0156, 1..50)) {
            let mut residual = vec![0.0; update.len()];
            let mut body = vec![0; update.len()];
            prop_assert_eq!(encode(&update, &mut residual, &mut body, TAU).entries, 0);
            prop_assert_eq!(residual, update);
        }

        /// A body of any bytes is applied whole or not at all.
        #[test]
        fn a_bad_body_touches_nothing(words in prop::collection::vec(0u32..12, 0..6), cut in 0usize..4, sign in any::<bool>()) {
            let words: Vec<u32> = words.into_iter().map(|w| if sign { w | NEGATIVE } else { w }).collect();
            let mut body = bytes(&words);
            body.truncate(body.len().saturating_sub(cut));
            let mut ledger = vec![0; 10];
            let rising = words.windows(2).all(|p| (p[0] & !NEGATIVE) < (p[1] & !NEGATIVE));
            let good = body.len() == words.len() * 4 && rising && words.iter().all(|w| w & !NEGATIVE < 10);
            prop_assert_eq!(decode(&body, &mut ledger).is_ok(), good);
            prop_assert_eq!(ledger.iter().map(|q| q.abs()).sum::<i32>(), if good { words.len() as i32 } else { 0 });
        }
    }

    #[test]
    fn errors_say_expected_and_got() {
        use alloc::string::ToString;
        let error = |body: &[u8], ledger: &mut [i32]| decode(body, ledger).unwrap_err().to_string();
        assert_eq!(error(&[0; 5], &mut [0; 4]), "quanta: expected whole 32-bit words, got 5 bytes");
        assert_eq!(error(&bytes(&[4]), &mut [0; 4]), "quanta: expected an index below 4, got 4");
        assert_eq!(error(&bytes(&[2, 2]), &mut [0; 4]), "quanta: expected an index of at least 3, got 2");
        let full = error(&bytes(&[1]), &mut [0, i32::MAX]);
        assert_eq!(full, "quanta: expected a count within 32 bits at index 1, got more");
    }
}
