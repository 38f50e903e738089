//! Elementary functions on one float32, written so that a loop over them becomes vector code:
//! no branch, no table, no call into a mathematics library. Polynomials were fitted to the
//! functions in 40-digit arithmetic for the least largest error.
//!
//! `FUSED` says whether a product and a sum round once. It is a property of the machine, so
//! that one kind of machine gives one result.

const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Adding it rounds a small number to the nearest whole one, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;

/// a times b plus c.
#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn polynomial<const FUSED: bool, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[N - 1];
    let mut index = N - 1;
    while index > 0 {
        index -= 1;
        sum = multiply_add::<FUSED>(sum, x, coefficients[index]);
    }
    sum
}

/// Two to a whole power of -126..=127.
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent.wrapping_add(127) as u32) << 23)
}

/// e to the x: within 2 units in the last place; 0 and infinity beyond the range.
#[inline(always)]
pub(crate) fn exponential<const FUSED: bool>(x: f32) -> f32 {
    // Beyond these, 0 and infinity are the nearest; `min` and `max` also keep the whole part
    // small where x is not a number.
    let bounded = if x > -104.0 { x } else { -104.0 };
    let bounded = if bounded < 89.0 { bounded } else { 89.0 };
    let rounded = multiply_add::<FUSED>(bounded, std::f32::consts::LOG2_E, ROUND);
    let whole = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let count = rounded - ROUND;
    let rest = multiply_add::<FUSED>(count, -LN_2_HIGH, bounded);
    let rest = multiply_add::<FUSED>(count, -LN_2_LOW, rest);
    let series = polynomial::<FUSED, 5>(
        rest,
        [
            0.499_999_94,
            0.166_665_15,
            0.041_668_456,
            0.008_369_419,
            0.001_381_314_5,
        ],
    );
    let base = multiply_add::<FUSED>(rest * rest, series, rest) + 1.0;
    // In two steps, since one would leave the range of exponents near its ends.
    let half = whole >> 1;
    let result = base * power_of_two(half) * power_of_two(whole.wrapping_sub(half));
    if x.is_nan() { x } else { result }
}

/// The natural logarithm: within 2 units in the last place.
#[inline(always)]
pub(crate) fn logarithm<const FUSED: bool>(x: f32) -> f32 {
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = if subnormal { x * 8_388_608.0 } else { x };
    let bias = if subnormal { 23.0 } else { 0.0 };
    // The fraction is taken between sqrt(1/2) and sqrt(2).
    let bits = scaled.to_bits().wrapping_sub(0x3f35_04f3) as i32;
    let count = (bits >> 23) as f32 - bias;
    let fraction = f32::from_bits(((bits & 0x007f_ffff) as u32).wrapping_add(0x3f35_04f3)) - 1.0;
    let series = polynomial::<FUSED, 9>(
        fraction,
        [
            0.333_333_13,
            -0.250_000_1,
            0.200_021_19,
            -0.166_679_96,
            0.142_195_52,
            -0.124_055_89,
            0.118_881_62,
            -0.116_756_52,
            0.067_466_41,
        ],
    );
    let square = fraction * fraction;
    let tail = multiply_add::<FUSED>(count, LN_2_LOW, fraction * square * series);
    let tail = multiply_add::<FUSED>(square, -0.5, tail);
    let result = multiply_add::<FUSED>(count, LN_2_HIGH, fraction + tail);
    let result = if x == f32::INFINITY { x } else { result };
    let result = if x == 0.0 { f32::NEG_INFINITY } else { result };
    if x >= 0.0 { result } else { f32::NAN }
}

/// log(1 + x) for x in 0..=1, by Kahan's correction of the rounding of 1 + x.
#[inline(always)]
fn logarithm_of_one_plus<const FUSED: bool>(x: f32) -> f32 {
    let sum = 1.0 + x;
    let difference = sum - 1.0;
    let corrected = logarithm::<FUSED>(sum) * (x / difference);
    if difference == 0.0 { x } else { corrected }
}

/// The hyperbolic tangent: within 3 units in the last place.
#[inline(always)]
pub(crate) fn tanh<const FUSED: bool>(x: f32) -> f32 {
    let size = x.abs();
    let square = x * x;
    let series = polynomial::<FUSED, 5>(
        square,
        [
            -0.333_332_78,
            0.133_313_28,
            -0.053_729_23,
            0.020_602_008,
            -0.005_660_789,
        ],
    );
    let small = multiply_add::<FUSED>(x * square, series, x);
    let large = 1.0 - 2.0 / (exponential::<FUSED>(size + size) + 1.0);
    if size < 0.625 {
        small
    } else {
        large.copysign(x)
    }
}

/// 1 / (1 + exp(-x)).
#[inline(always)]
pub(crate) fn logistic<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exponential::<FUSED>(-x))
}

/// log(1 + exp(x)), from the side where exp does not overflow.
#[inline(always)]
pub(crate) fn softplus<const FUSED: bool>(x: f32) -> f32 {
    let positive = if x < 0.0 { 0.0 } else { x };
    positive + logarithm_of_one_plus::<FUSED>(exponential::<FUSED>(-x.abs()))
}

/// The normal distribution function: erfc(-x / sqrt(2)) / 2, where erfc(z) is
/// t exp(P(t) - z²) with t = 1 / (1 + z/2) for z >= 0, a form of Press et al., Numerical
/// Recipes, 6.2.
#[inline(always)]
fn normal_distribution<const FUSED: bool>(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / multiply_add::<FUSED>(z, 0.5, 1.0);
    let series = polynomial::<FUSED, 10>(
        t,
        [
            -1.265_441_4,
            0.998_492_54,
            0.387_899_5,
            0.028_358_232,
            0.020_192_52,
            -0.116_780_76,
            -0.651_256_9,
            1.122_407_4,
            -0.666_065_9,
            0.142_194_78,
        ],
    );
    let tail = 0.5 * t * exponential::<FUSED>(multiply_add::<FUSED>(-z, z, series));
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// x times the normal distribution function (Hendrycks and Gimpel 2016, the exact form).
#[inline(always)]
pub(crate) fn gelu<const FUSED: bool>(x: f32) -> f32 {
    x * normal_distribution::<FUSED>(x)
}

/// The derivative of [`gelu`].
#[inline(always)]
pub(crate) fn gelu_slope<const FUSED: bool>(x: f32) -> f32 {
    const INVERSE_SQRT_TAU: f32 = 0.398_942_3;
    let density = INVERSE_SQRT_TAU * exponential::<FUSED>(-0.5 * x * x);
    multiply_add::<FUSED>(x, density, normal_distribution::<FUSED>(x))
}

/// x times logistic(x).
#[inline(always)]
pub(crate) fn silu<const FUSED: bool>(x: f32) -> f32 {
    x * logistic::<FUSED>(x)
}

/// -1, 0 or 1; not a number stays so.
#[inline(always)]
pub(crate) fn sign(x: f32) -> f32 {
    let one = 1.0_f32.copysign(x);
    if x == 0.0 || x.is_nan() { x } else { one }
}

/// The largest whole number that is not above x.
#[inline(always)]
pub(crate) fn floor(x: f32) -> f32 {
    // Where |x| >= 2^23 there is no fraction, and the conversion would not hold it.
    let truncated = (x as i32) as f32;
    let lower = if truncated > x {
        truncated - 1.0
    } else {
        truncated
    };
    let whole = x.abs() >= 8_388_608.0 || x.is_nan();
    if whole { x } else { lower.copysign(x) }
}

/// x to the power of y as IEEE 754 `pow`, by float64 logarithm and exponential so that the
/// result is within 2 units in the last place.
#[inline(always)]
pub(crate) fn power(x: f32, y: f32) -> f32 {
    let size = f64::from(x.abs());
    let product = f64::from(y) * logarithm_f64(size);
    let bounded = product.clamp(-200.0, 200.0);
    let result = exponential_f64(bounded) as f32;
    // 0 * infinity in the product: a base of 1, or an exponent of 0, gives 1.
    let result = if product.is_nan() { f32::NAN } else { result };
    let whole = floor(y) == y;
    let half = y * 0.5;
    let odd = whole && floor(half) != half;
    let negative = x.is_sign_negative();
    let signed = if negative && odd { -result } else { result };
    let signed = if x < 0.0 && !whole && x.is_finite() {
        f32::NAN
    } else {
        signed
    };
    if y == 0.0 || x == 1.0 || (x == -1.0 && y.is_infinite()) {
        1.0
    } else {
        signed
    }
}

/// The natural logarithm of x >= 0 to about 1e-13.
#[inline(always)]
fn logarithm_f64(x: f64) -> f64 {
    let bits = x.to_bits().wrapping_sub(0x3fe6_a09e_667f_3bcd) as i64;
    let count = (bits >> 52) as f64;
    let fraction =
        f64::from_bits(((bits & 0x000f_ffff_ffff_ffff) as u64).wrapping_add(0x3fe6_a09e_667f_3bcd));
    // log(m) = 2 artanh(s) with s = (m - 1) / (m + 1), |s| < 0.172.
    let s = (fraction - 1.0) / (fraction + 1.0);
    let z = s * s;
    let mut sum = 1.0 / 17.0;
    let mut odd = 15.0;
    while odd >= 1.0 {
        sum = sum * z + 1.0 / odd;
        odd -= 2.0;
    }
    let result = count * std::f64::consts::LN_2 + 2.0 * s * sum;
    let result = if x == 0.0 { f64::NEG_INFINITY } else { result };
    if x == f64::INFINITY || x.is_nan() {
        x
    } else {
        result
    }
}

/// e to the x, |x| <= 200, to about 1e-13.
#[inline(always)]
fn exponential_f64(x: f64) -> f64 {
    const ROUND_F64: f64 = 6_755_399_441_055_744.0;
    let rounded = x * std::f64::consts::LOG2_E + ROUND_F64;
    let whole = (rounded.to_bits() as i64).wrapping_sub(ROUND_F64.to_bits() as i64);
    let rest = x - (rounded - ROUND_F64) * std::f64::consts::LN_2;
    let mut sum = 1.0;
    let mut place = 12.0;
    while place >= 1.0 {
        sum = sum * rest / place + 1.0;
        place -= 1.0;
    }
    let result = sum * f64::from_bits((whole.wrapping_add(1023) as u64) << 52);
    if x.is_nan() { x } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance in units in the last place of the exact result, at least a subnormal's.
    fn error_in_units(found: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        if nearest.is_nan() || nearest.is_infinite() || found == nearest {
            assert_eq!(found.is_nan(), nearest.is_nan(), "{found} for {exact}");
            return if found.to_bits() == nearest.to_bits() || found.is_nan() || found == nearest {
                0.0
            } else {
                f64::INFINITY
            };
        }
        let exponent = nearest.abs().max(f32::MIN_POSITIVE).log2().floor();
        (f64::from(found) - exact).abs() / f64::from(exponent - 23.0).exp2()
    }

    fn worst(range: std::ops::Range<f32>, f: fn(f32) -> f32, exact: fn(f64) -> f64) -> (f64, f32) {
        let steps = 400_000;
        let mut worst = (0.0, 0.0);
        for step in 0..=steps {
            let x = range.start + (range.end - range.start) * (step as f32 / steps as f32);
            let error = error_in_units(f(x), exact(f64::from(x)));
            if error > worst.0 {
                worst = (error, x);
            }
        }
        worst
    }

    /// erf by its Taylor series near 0 and the continued fraction of erfc elsewhere
    /// (Abramowitz and Stegun 7.1.5 and 7.1.14).
    fn normal_f64(x: f64) -> f64 {
        let z = x.abs() / std::f64::consts::SQRT_2;
        let tail = if z < 2.0 {
            let mut term = z;
            let mut sum = z;
            for n in 1..80 {
                term *= -z * z / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            1.0 - sum * 2.0 / std::f64::consts::PI.sqrt()
        } else {
            let mut fraction = z;
            for n in (1..200).rev() {
                fraction = z + f64::from(n) / 2.0 / fraction;
            }
            (-z * z).exp() / fraction / std::f64::consts::PI.sqrt()
        };
        if x < 0.0 {
            0.5 * tail
        } else {
            1.0 - 0.5 * tail
        }
    }

    macro_rules! both {
        ($name:ident, $range:expr, $exact:expr, $units:expr) => {
            for (kind, found) in [
                ("fused", worst($range, $name::<true>, $exact)),
                ("apart", worst($range, $name::<false>, $exact)),
            ] {
                assert!(
                    found.0 <= $units,
                    "{} {kind}: {} units at {}",
                    stringify!($name),
                    found.0,
                    found.1
                );
            }
        };
    }

    #[test]
    fn functions_are_as_exact_as_they_say() {
        both!(exponential, -87.0..88.7, f64::exp, 2.0);
        both!(exponential, -1.0..1.0, f64::exp, 2.0);
        both!(logarithm, 1e-30..1e-20, f64::ln, 2.0);
        both!(logarithm, 0.0..4.0, f64::ln, 2.0);
        both!(logarithm, 1.0..1e30, f64::ln, 2.0);
        both!(tanh, -10.0..10.0, f64::tanh, 3.0);
        both!(tanh, -0.7..0.7, f64::tanh, 3.0);
        both!(logistic, -80.0..80.0, |x| 1.0 / (1.0 + (-x).exp()), 4.0);
        both!(
            softplus,
            -80.0..80.0,
            |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p(),
            4.0
        );
        both!(silu, -80.0..80.0, |x| x / (1.0 + (-x).exp()), 5.0);
        both!(gelu, -3.0..10.0, |x| x * normal_f64(x), 24.0);
    }

    #[test]
    fn gelu_is_exact_to_a_ten_millionth_where_it_is_small() {
        for step in 0..200_000 {
            let x = -12.0 + step as f32 * 1e-4;
            let exact = f64::from(x) * normal_f64(f64::from(x));
            assert!(
                (f64::from(gelu::<true>(x)) - exact).abs() < 2e-7 * (1.0 + exact.abs()),
                "{x}"
            );
            let slope = normal_f64(f64::from(x))
                + f64::from(x) * (-0.5 * f64::from(x).powi(2)).exp() / std::f64::consts::TAU.sqrt();
            assert!(
                (f64::from(gelu_slope::<true>(x)) - slope).abs() < 5e-7,
                "{x}"
            );
        }
    }

    #[test]
    fn ends_of_the_range_are_those_of_ieee_754() {
        for f in [exponential::<true>, exponential::<false>] {
            assert_eq!(f(f32::INFINITY), f32::INFINITY);
            assert_eq!(f(f32::NEG_INFINITY), 0.0);
            assert_eq!(f(200.0), f32::INFINITY);
            assert_eq!(f(-200.0), 0.0);
            assert_eq!(f(0.0), 1.0);
            assert!(f(f32::NAN).is_nan());
            assert!((f(-100.0) - 3.8e-44).abs() < 2e-45);
        }
        for f in [logarithm::<true>, logarithm::<false>] {
            assert_eq!(f(f32::INFINITY), f32::INFINITY);
            assert_eq!(f(0.0), f32::NEG_INFINITY);
            assert_eq!(f(-0.0), f32::NEG_INFINITY);
            assert_eq!(f(1.0), 0.0);
            assert!(f(-1.0).is_nan() && f(f32::NAN).is_nan());
            assert!((f(1e-40) + 92.103_4).abs() < 1e-4);
        }
        assert_eq!(tanh::<true>(100.0), 1.0);
        assert_eq!(tanh::<true>(f32::NEG_INFINITY), -1.0);
        assert!(tanh::<true>(f32::NAN).is_nan());
        assert_eq!(logistic::<true>(f32::NEG_INFINITY), 0.0);
        assert_eq!(softplus::<true>(f32::INFINITY), f32::INFINITY);
        assert!(softplus::<true>(f32::NAN).is_nan());
        assert_eq!(sign(-3.0), -1.0);
        assert_eq!(sign(0.0), 0.0);
        assert!(sign(f32::NAN).is_nan());
    }

    #[test]
    fn floor_and_power_agree_with_the_standard_library() {
        let values = [
            0.0,
            -0.0,
            0.5,
            -0.5,
            1.0,
            -1.0,
            2.0,
            -2.0,
            3.0,
            -3.0,
            2.5,
            -2.5,
            1e-3,
            1e3,
            -1e3,
            7.25,
            1e9,
            -1e9,
            8_388_607.5,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            1e-40,
            -7.0,
            3e38,
        ];
        for x in values {
            let (found, exact) = (floor(x), x.floor());
            assert!(
                found == exact || found.is_nan() && exact.is_nan(),
                "floor {x}: {found}"
            );
            for y in values {
                let exact = f64::from(x).powf(f64::from(y));
                let error = error_in_units(power(x, y), exact);
                assert!(error <= 2.0, "{x} to the {y}: {} for {exact}", power(x, y));
            }
        }
    }
}
