//! Weights: how they begin, how they are stored.

use crate::support::*;
use sandcast_kernels::graph::*;

#[test]
fn weights_begin_as_their_initializers_say() {
    let mut builder = Builder::new();
    let cases = [
        ("zeros", Initializer::Zeros, [100, 200], 0.0, 0.0),
        (
            "uniform",
            Initializer::Uniform(0.5),
            [100, 200],
            0.5,
            0.5 / 3.0_f64.sqrt(),
        ),
        ("normal", Initializer::Normal(2.0), [100, 200], 12.0, 2.0),
        (
            "glorot",
            Initializer::GlorotUniform,
            [100, 200],
            (6.0_f64 / 300.0).sqrt(),
            (2.0_f64 / 300.0).sqrt(),
        ),
        (
            "he",
            Initializer::HeUniform,
            [100, 200],
            (6.0_f64 / 100.0).sqrt(),
            (2.0_f64 / 100.0).sqrt(),
        ),
    ];
    let mut last = 0;
    for (name, initializer, shape, ..) in &cases {
        last = builder.parameter(name, shape, *initializer);
    }
    let ones = builder.parameter("ones", &[3], Initializer::Ones);
    builder.entry("last", &[("last", last), ("ones", ones)]);
    let program = builder.compile();
    let session = session(&program, 1, 9);
    let weights = session.weights();
    assert_eq!(weights["ones"].to_f32(), [1.0; 3]);
    for (name, _, _, bound, deviation) in cases {
        let values: Vec<f64> = weights[name].to_f32().into_iter().map(f64::from).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(values.iter().all(|x| x.abs() <= bound), "{name}");
        assert!(mean.abs() <= deviation * 0.03, "{name}: mean {mean}");
        assert!(
            (variance.sqrt() - deviation).abs() <= deviation * 0.02,
            "{name}: {}",
            variance.sqrt()
        );
    }
    assert_eq!(crate::support::session(&program, 2, 9).weights(), weights);
    assert_ne!(
        crate::support::session(&program, 1, 10).weights()["he"],
        weights["he"]
    );
    // Parameters alike in all but their node draw apart.
    assert_ne!(
        weights["uniform"].to_f32()[0] / 0.5,
        weights["he"].to_f32()[0] / 0.06_f32.sqrt()
    );
}

#[test]
fn stored_weights_come_back_bit_by_bit() {
    let program = classifier(8, 2, 0.0).compile();
    let trained = session(&program, 1, 1);
    let bytes = trained.to_safetensors();
    let mut other = session(&program, 1, 2);
    assert_ne!(other.weights(), trained.weights());
    let feeds = moons(10, 8, 1);
    let before = other.infer("predict", &feeds).expect("results");
    other.load_safetensors(&bytes).expect("its own weights");
    assert_eq!(other.weights(), trained.weights());
    let after = other.infer("predict", &feeds).expect("results");
    assert_ne!(before, after);
    assert_eq!(after, trained.infer("predict", &feeds).expect("results"));
    assert_eq!(other.to_safetensors(), bytes);
    // The format is the one that everybody reads.
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).expect("json");
    assert_eq!(header["hidden0.weight"]["dtype"], "F32");
    assert_eq!(
        header["hidden0.weight"]["shape"],
        serde_json::json!([8, 256])
    );
    assert_eq!(
        header["__metadata__"]["sandcast.program"]
            .as_str()
            .map(str::len),
        Some(64)
    );
}

#[test]
fn weights_that_do_not_fit_are_refused_and_change_nothing() {
    let program = classifier(8, 2, 0.0).compile();
    let mut session = session(&program, 1, 1);
    let bytes = session.to_safetensors();
    let before = session.weights();
    let mut refuse = |bytes: &[u8]| {
        let refused = session
            .load_safetensors(bytes)
            .expect_err("a refusal")
            .to_string();
        assert_eq!(session.weights(), before);
        refused
    };
    let edited = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let length = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let header = String::from_utf8(bytes[8..length].to_vec()).expect("utf-8");
        assert!(header.contains(from), "{header}");
        [
            &bytes[..8],
            header.replace(from, to).as_bytes(),
            &bytes[length..],
        ]
        .concat()
    };
    assert!(refuse(b"").contains("they are not safetensors"));
    assert!(refuse(&bytes[..100]).contains("they are not safetensors"));
    assert!(refuse(&bytes[..bytes.len() - 4]).contains("they are not safetensors"));
    assert!(refuse(&[0xff; 64]).contains("they are not safetensors"));
    assert_eq!(
        refuse(&edited("output.bias", "output.bios")),
        "the weights do not fit the program: `output.bios` is not a parameter of the program"
    );
    assert!(
        refuse(&edited("sandcast.program", "sandcast.progrom")).contains("no `sandcast.program`")
    );
    let swapped = edited("[8,256]", "[256,8]");
    assert_eq!(
        refuse(&swapped),
        "the weights do not fit the program: `hidden0.weight` has shape [256, 8] and must have [8, 256]"
    );
    let dtype = edited("\"F32\"", "\"I32\"");
    assert!(refuse(&dtype).contains("is I32 and must be F32"));
    let other = crate::support::session(&classifier(8, 2, 0.5).compile(), 1, 1).to_safetensors();
    assert!(refuse(&other).contains("they belong to program"));
}

#[test]
fn one_parameter_is_read_and_replaced() {
    let program = classifier(6, 2, 0.0).compile();
    let mut session = session(&program, 1, 4);
    let before = session.weights();
    let name = before.keys().next().expect("a parameter").clone();
    let shape = before[&name].shape().to_vec();
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|place| place as f32).collect();
    let tensor = |values: Vec<f32>| {
        sandcast_kernels::Tensor::from_f32(shape.clone(), values).expect("as many values")
    };
    session
        .set_parameter(&name, &tensor(values.clone()))
        .expect("other numbers");
    assert_eq!(session.parameter(&name), Some(tensor(values.clone())));
    for (other, value) in session.weights() {
        assert!(other == name || value == before[&other], "{other}");
    }
    let mut wrong = values.clone();
    wrong[count - 1] = f32::INFINITY;
    let refused = [
        session.set_parameter("nobody", &tensor(values.clone())),
        session.set_parameter(&name, &tensor(wrong)),
        session.set_parameter(
            &name,
            &sandcast_kernels::Tensor::from_f32(vec![count + 1], vec![0.0; count + 1])
                .expect("as many values"),
        ),
    ];
    assert!(refused.iter().all(Result::is_err), "{refused:?}");
    assert_eq!(session.parameter(&name), Some(tensor(values)));
    assert_eq!(session.parameter("nobody"), None);
}
