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

/// exp(-x²/2), the normal density but for its factor.
#[inline(always)]
fn bell<const FUSED: bool>(x: f32) -> f32 {
    exponential::<FUSED>(-0.5 * x * x)
}

/// The normal distribution function of x, of which `bell` is [`bell`]: erfc(-x / sqrt(2)) / 2,
/// where erfc(z) is t P(t) exp(-z²) with t = 1 / (1 + z/2) for z >= 0, a form of Abramowitz and
/// Stegun, 7.1.26.
#[inline(always)]
fn normal_distribution<const FUSED: bool>(x: f32, bell: f32) -> f32 {
    let t = 1.0 / multiply_add::<FUSED>(x.abs(), 0.353_553_4, 1.0);
    let series = polynomial::<FUSED, 9>(
        t,
        [
            0.282_086_43,
            0.282_375_3,
            0.243_103_76,
            0.202_686_88,
            -0.026_625_697,
            0.278_067_2,
            -0.487_199_96,
            0.284_575,
            -0.059_068_967,
        ],
    );
    let tail = 0.5 * t * (series * bell);
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// x times the normal distribution function (Hendrycks and Gimpel 2016, the exact form).
#[inline(always)]
pub(crate) fn gelu<const FUSED: bool>(x: f32) -> f32 {
    gelu_and_slope::<FUSED>(x).0
}

/// The derivative of [`gelu`].
#[inline(always)]
pub(crate) fn gelu_slope<const FUSED: bool>(x: f32) -> f32 {
    gelu_and_slope::<FUSED>(x).1
}

/// [`gelu`] and its derivative, which have most of their work in common.
#[inline(always)]
pub(crate) fn gelu_and_slope<const FUSED: bool>(x: f32) -> (f32, f32) {
    const INVERSE_SQRT_TAU: f32 = 0.398_942_3;
    let bell = bell::<FUSED>(x);
    let share = normal_distribution::<FUSED>(x, bell);
    let slope = multiply_add::<FUSED>(x, INVERSE_SQRT_TAU * bell, share);
    (x * share, slope)
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

/// The angle up to which [`sine`], [`cosine`] and [`tangent`] are exact.
pub(crate) const MODERATE_ANGLE: f32 = 65_536.0;

/// An angle as a number of quarter turns, of which the last two bits matter, and the rest in
/// -pi/4..=pi/4, for |x| <= [`MODERATE_ANGLE`]. Pi/2 is taken away in three parts, the products
/// with the first two of which are exact (Cody and Waite 1980).
#[inline(always)]
fn quarter_turns(x: f32) -> (u64, f64) {
    const ROUND_F64: f64 = 6_755_399_441_055_744.0;
    const HIGH: f64 = f64::from_bits(0x3ff9_21fb_4000_0000);
    const MIDDLE: f64 = f64::from_bits(0x3e74_442d_0000_0000);
    const LOW: f64 = f64::from_bits(0x3cf8_4698_98cc_5170);
    let x = f64::from(x);
    let rounded = x * std::f64::consts::FRAC_2_PI + ROUND_F64;
    let count = rounded - ROUND_F64;
    let rest = ((x - count * HIGH) - count * MIDDLE) - count * LOW;
    (rounded.to_bits(), rest)
}

/// The same for any finite angle, by as many bits of 2/pi as it takes (Payne and Hanek 1983).
fn quarter_turns_of_large(x: f32) -> (u64, f64) {
    /// 2/pi behind the point.
    const BITS: [u64; 5] = [
        0xa2f9_836e_4e44_1529,
        0xfc27_57d1_f534_ddc0,
        0xdb62_9599_3c43_9041,
        0xfe51_63ab_debb_c561,
        0xb724_6e3a_424d_d2e0,
    ];
    /// Bits that are taken: of the product with 24 others, none is lost.
    const TAKEN: i32 = 104;
    let bits = x.to_bits();
    // x is `fraction` times 2 to the `exponent`.
    let exponent = ((bits >> 23) & 0xff) as i32 - 150;
    let fraction = u128::from((bits & 0x007f_ffff) | 0x0080_0000);
    // Bits of 2/pi before this one make whole turns.
    let first = exponent - 1;
    let mut window: u128 = 0;
    for place in first..first + TAKEN {
        let bit = match usize::try_from(place - 1) {
            Ok(place) => BITS
                .get(place / 64)
                .map_or(0, |word| word >> (63 - place % 64) & 1),
            Err(_) => 0,
        };
        window = window << 1 | u128::from(bit);
    }
    // Quarter turns, with TAKEN - 2 bits behind the point.
    let product = fraction * window;
    let point = (TAKEN - 2) as u32;
    let whole = (product >> point) as u64;
    let part = product & ((1 << point) - 1);
    let up = part >> (point - 1) & 1;
    let part = part as i128 - ((up as i128) << point);
    let rest = part as f64 / (1_u128 << point) as f64 * std::f64::consts::FRAC_PI_2;
    let count = whole.wrapping_add(up as u64);
    if x < 0.0 {
        (count.wrapping_neg(), -rest)
    } else {
        (count, rest)
    }
}

/// The sine of a rest in -pi/4..=pi/4, by its Taylor series.
#[inline(always)]
fn sine_of_rest(x: f64) -> f64 {
    let z = x * x;
    let series = z * (z * (z * (z * (1.0 / 362_880.0) - 1.0 / 5040.0) + 1.0 / 120.0) - 1.0 / 6.0);
    x + x * series
}

/// The cosine of a rest in -pi/4..=pi/4, by its Taylor series.
#[inline(always)]
fn cosine_of_rest(x: f64) -> f64 {
    let z = x * x;
    let series = z * (z * (z * (1.0 / 40_320.0) - 1.0 / 720.0) + 1.0 / 24.0) - 0.5;
    1.0 + z * series - z * z * z * z * z * (1.0 / 3_628_800.0)
}

/// The sine after so many quarter turns and a rest.
#[inline(always)]
fn sine_after((count, rest): (u64, f64)) -> f32 {
    let odd = count & 1 == 1;
    let size = if odd {
        cosine_of_rest(rest)
    } else {
        sine_of_rest(rest)
    };
    let signed = if count & 2 == 2 { -size } else { size };
    signed as f32
}

/// The tangent after so many quarter turns and a rest.
#[inline(always)]
fn tangent_after((count, rest): (u64, f64)) -> f32 {
    let (sine, cosine) = (sine_of_rest(rest), cosine_of_rest(rest));
    let (above, below) = if count & 1 == 1 {
        (-cosine, sine)
    } else {
        (sine, cosine)
    };
    (above / below) as f32
}

/// The sine: within 1 unit in the last place, for |x| <= [`MODERATE_ANGLE`].
#[inline(always)]
pub(crate) fn sine(x: f32) -> f32 {
    let found = sine_after(quarter_turns(x));
    // The sum of a negative zero and zeros is positive.
    if x == 0.0 { x } else { found }
}

/// The cosine: within 1 unit in the last place, for |x| <= [`MODERATE_ANGLE`].
#[inline(always)]
pub(crate) fn cosine(x: f32) -> f32 {
    let (count, rest) = quarter_turns(x);
    sine_after((count.wrapping_add(1), rest))
}

/// The tangent: within 1 unit in the last place, for |x| <= [`MODERATE_ANGLE`].
#[inline(always)]
pub(crate) fn tangent(x: f32) -> f32 {
    let found = tangent_after(quarter_turns(x));
    if x == 0.0 { x } else { found }
}

/// The sine of any angle; of an infinite one, not a number.
pub(crate) fn sine_of_large(x: f32) -> f32 {
    if x.is_finite() {
        sine_after(quarter_turns_of_large(x))
    } else {
        f32::NAN
    }
}

/// The cosine of any angle; of an infinite one, not a number.
pub(crate) fn cosine_of_large(x: f32) -> f32 {
    if x.is_finite() {
        let (count, rest) = quarter_turns_of_large(x);
        sine_after((count.wrapping_add(1), rest))
    } else {
        f32::NAN
    }
}

/// The tangent of any angle; of an infinite one, not a number.
pub(crate) fn tangent_of_large(x: f32) -> f32 {
    if x.is_finite() {
        tangent_after(quarter_turns_of_large(x))
    } else {
        f32::NAN
    }
}

/// The nearest whole number, of two the even one.
#[inline(always)]
pub(crate) fn round(x: f32) -> f32 {
    const WHOLE: f32 = 8_388_608.0;
    let size = x.abs();
    let nearest = (size + WHOLE) - WHOLE;
    let rounded = if size < WHOLE { nearest } else { size };
    rounded.copysign(x)
}

/// The error function: within 3 units in the last place.
#[inline(always)]
pub(crate) fn error_function<const FUSED: bool>(x: f32) -> f32 {
    let series = polynomial::<FUSED, 8>(
        x * x,
        [
            std::f32::consts::FRAC_2_SQRT_PI,
            -0.376_126_38,
            0.112_837_82,
            -0.026_865_43,
            0.005_221_031_6,
            -0.000_848_408_03,
            0.000_112_659_59,
            -9.667_045e-6,
        ],
    );
    let small = x * series;
    // 1 - erfc(|x|), which is twice the tail of the normal distribution.
    let turned = -x.abs() * std::f32::consts::SQRT_2;
    let tail = normal_distribution::<FUSED>(turned, bell::<FUSED>(turned));
    let large = (1.0 - 2.0 * tail).copysign(x);
    if x.abs() < 1.0 { small } else { large }
}

/// exp(x) - 1: within 3 units in the last place.
#[inline(always)]
pub(crate) fn exponential_minus_one<const FUSED: bool>(x: f32) -> f32 {
    let series = polynomial::<FUSED, 7>(
        x,
        [
            0.5,
            0.166_666_7,
            0.041_666_67,
            0.008_332_75,
            0.001_388_830_6,
            0.000_200_788_94,
            2.503_899e-5,
        ],
    );
    let small = multiply_add::<FUSED>(x * x, series, x);
    let large = exponential::<FUSED>(x) - 1.0;
    let found = if x.abs() < 0.7 { small } else { large };
    if x == 0.0 { x } else { found }
}

/// log(1 + x), by Kahan's correction of the rounding of 1 + x: within 4 units in the last place.
#[inline(always)]
pub(crate) fn log_plus_one<const FUSED: bool>(x: f32) -> f32 {
    let sum = 1.0 + x;
    let difference = sum - 1.0;
    let corrected = logarithm::<FUSED>(sum) * (x / difference);
    let found = if difference == 0.0 { x } else { corrected };
    if x == f32::INFINITY { x } else { found }
}

/// The cube root, by two steps of Halley's method from a guess that divides the exponent.
#[inline(always)]
pub(crate) fn cube_root(x: f32) -> f32 {
    let size = f64::from(x.abs());
    let mut root = f64::from_bits(size.to_bits() / 3 + 0x2a9f_7893_782d_a1ce);
    for _ in 0..2 {
        let cube = root * root * root;
        root *= (cube + size + size) / (cube + cube + size);
    }
    let found = (root as f32).copysign(x);
    if x == 0.0 || !x.is_finite() { x } else { found }
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
    fn angles_and_roots_are_as_exact_as_they_say() {
        fn whole(f: fn(f32) -> f32, large: fn(f32) -> f32) -> impl Fn(f32) -> f32 {
            move |x| {
                if x.abs() > MODERATE_ANGLE {
                    large(x)
                } else {
                    f(x)
                }
            }
        }
        let mut state = 1_u64;
        let mut any = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            f32::from_bits((state >> 32) as u32)
        };
        let sine = whole(sine, sine_of_large);
        let cosine = whole(cosine, cosine_of_large);
        let tangent = whole(tangent, tangent_of_large);
        for _ in 0..400_000 {
            let x = any();
            let exact = f64::from(x);
            if !x.is_finite() {
                assert!(sine(x).is_nan() && cosine(x).is_nan() && tangent(x).is_nan());
                continue;
            }
            assert!(error_in_units(sine(x), exact.sin()) <= 1.0, "sine {x}");
            assert!(error_in_units(cosine(x), exact.cos()) <= 1.0, "cosine {x}");
            assert!(
                error_in_units(tangent(x), exact.tan()) <= 1.0,
                "tangent {x}"
            );
            assert!(
                error_in_units(cube_root(x), exact.cbrt()) <= 1.0,
                "cube root {x}"
            );
            assert_eq!(round(x), x.round_ties_even(), "round {x}");
        }
        for step in -400_000..400_000 {
            let x = step as f32 * 1e-4;
            let exact = f64::from(x);
            assert!(error_in_units(sine(x), exact.sin()) <= 1.0, "sine {x}");
            assert!(error_in_units(cosine(x), exact.cos()) <= 1.0, "cosine {x}");
            assert!(
                error_in_units(tangent(x), exact.tan()) <= 1.0,
                "tangent {x}"
            );
            assert_eq!(round(x), x.round_ties_even(), "round {x}");
        }
        // Both sides of where the way of taking turns away changes, and a hard case of it.
        for x in [
            65_535.996,
            65_536.0,
            65_536.01,
            16_367_173.0 * 2.0_f32.powi(72),
        ] {
            assert!(
                error_in_units(sine(x), f64::from(x).sin()) <= 1.0,
                "sine {x}"
            );
            assert!(
                error_in_units(cosine(x), f64::from(x).cos()) <= 1.0,
                "cosine {x}"
            );
        }
        assert!(sine(-0.0).is_sign_negative() && tangent(-0.0).is_sign_negative());
    }

    #[test]
    fn functions_near_zero_are_as_exact_as_they_say() {
        both!(exponential_minus_one, -20.0..88.7, f64::exp_m1, 3.0);
        both!(exponential_minus_one, -1.0..1.0, f64::exp_m1, 3.0);
        both!(log_plus_one, -0.999..1.0, f64::ln_1p, 4.0);
        both!(log_plus_one, 1.0..1e30, f64::ln_1p, 4.0);
        both!(
            error_function,
            -1.2..1.2,
            |x| 2.0 * normal_f64(x * std::f64::consts::SQRT_2) - 1.0,
            3.0
        );
        both!(
            error_function,
            1.0..6.0,
            |x| 2.0 * normal_f64(x * std::f64::consts::SQRT_2) - 1.0,
            3.0
        );
        assert_eq!(exponential_minus_one::<true>(f32::NEG_INFINITY), -1.0);
        assert_eq!(log_plus_one::<true>(f32::INFINITY), f32::INFINITY);
        assert_eq!(log_plus_one::<true>(-1.0), f32::NEG_INFINITY);
        assert!(log_plus_one::<true>(-1.5).is_nan());
        assert_eq!(error_function::<true>(f32::INFINITY), 1.0);
        assert!(error_function::<true>(f32::NAN).is_nan());
        assert!(exponential_minus_one::<true>(-0.0).is_sign_negative());
        for tiny in [1e-30_f32, -1e-30, 1e-8] {
            assert_eq!(exponential_minus_one::<false>(tiny), tiny);
            assert_eq!(log_plus_one::<false>(tiny), tiny);
        }
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
