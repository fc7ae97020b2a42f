//! [`Rider`]: a number that travels with contributions, and is averaged as they are.

/// A positive number that a worker sends with its contribution, in the header. The mean of a round has the mean of these
/// numbers, weighted by examples as the vectors are. Its meaning follows from the recipe: for instance the training
/// loss of the worker's last steps. Servers send such a number with parameters.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rider(u32);

/// Bits of the largest finite float.
const BITS_MAX: u32 = f32::MAX.to_bits();

impl Rider {
    /// `None` for a number that is not known: NaN, infinite or below 0. 0 counts as the smallest positive float.
    pub fn new(x: f64) -> Option<Self> {
        // NaN is in no range.
        let is_known = (0.0..=f64::from(f32::MAX)).contains(&x);
        is_known.then(|| Self((x as f32).to_bits().max(1)))
    }

    /// The number, above 0 and finite.
    pub const fn get(self) -> f32 {
        f32::from_bits(self.0)
    }

    /// 0: there is no rider. `Err`: the bits are no positive finite float.
    pub(crate) const fn from_wire(bits: u32) -> Result<Option<Self>, ()> {
        match bits {
            0 => Ok(None),
            1..=BITS_MAX => Ok(Some(Self(bits))),
            _ => Err(()),
        }
    }

    /// At most 31 bits, since the sign is 0.
    pub(crate) fn to_wire(rider: Option<Self>) -> u32 {
        rider.map_or(0, |rider| rider.0)
    }
}

/// A sum of riders, times their weights.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Riders {
    sum: f64,
    weight: f64,
    /// A rider with a weight is not known.
    unknown: bool,
}

impl Riders {
    pub(crate) const fn nothing() -> Self {
        Self { sum: 0.0, weight: 0.0, unknown: false }
    }

    pub(crate) fn add(&mut self, rider: Option<Rider>, weight: u64) {
        match rider {
            _ if weight == 0 => {}
            None => self.unknown = true,
            Some(rider) => {
                self.sum += f64::from(rider.get()) * weight as f64;
                self.weight += weight as f64;
            }
        }
    }

    /// The mean of the riders with a weight; `None` if one of them is not known, or if there are no riders.
    pub(crate) fn mean(&self) -> Option<Rider> {
        if self.unknown || self.weight == 0.0 { None } else { Rider::new(self.sum / self.weight) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_from_0_on_are_known() {
        for unknown in [f64::NAN, f64::INFINITY, -1e-9, 1e300] {
            assert_eq!(Rider::new(unknown), None);
        }
        assert_eq!(Rider::new(0.0).map(|rider| rider.get() > 0.0), Some(true));
        assert_eq!(Rider::new(2.5).map(Rider::get), Some(2.5));
    }

    #[test]
    fn all_bits_are_a_rider_or_none_or_refused() {
        for bits in [0, 1, 2.5f32.to_bits(), BITS_MAX] {
            assert_eq!(Rider::from_wire(bits).map(Rider::to_wire), Ok(bits));
        }
        for bits in [f32::INFINITY.to_bits(), f32::NAN.to_bits(), (-1.0f32).to_bits()] {
            assert_eq!(Rider::from_wire(bits), Err(()));
        }
    }

    #[test]
    fn a_mean_goes_by_weights_and_needs_all_that_have_one() {
        let of = Rider::new;
        let mean = |riders: &[(Option<Rider>, u64)]| {
            let mut sum = Riders::nothing();
            riders.iter().for_each(|(rider, weight)| sum.add(*rider, *weight));
            sum.mean()
        };
        assert_eq!(mean(&[(of(1.0), 3), (of(5.0), 1)]), of(2.0));
        assert_eq!(mean(&[(of(1.0), 3), (None, 0)]), of(1.0));
        assert_eq!(mean(&[(of(1.0), 3), (None, 1)]), None);
        assert_eq!(mean(&[(None, 0)]), None);
        // The mean of equal numbers is that number.
        assert_eq!(mean(&[(of(0.1), 3), (of(0.1), 7), (of(0.1), 1 << 25)]), of(f64::from(0.1f32)));
    }
}
