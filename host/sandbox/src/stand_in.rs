//! Stands in for the types of `sandcast-kernels` until they are there.

/// Where tensor programs run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best there is.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// A graphics card.
    Cuda(u32),
}

/// A tensor program as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {}

/// What one run of an entry costs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cost {
    /// The entry.
    pub entry: String,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes moved.
    pub bytes_moved: u64,
    /// Bytes held at most.
    pub peak_bytes: u64,
}

/// What an epoch came to.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EpochReport {
    /// From 1.
    pub epoch: u32,
    /// The mean training loss.
    pub train_loss: f64,
    /// The validation loss.
    pub validation_loss: Option<f64>,
    /// The learning rate at its end.
    pub learning_rate: f32,
    /// How long it took.
    pub seconds: f64,
}

/// What a training came to.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TrainReport {
    /// One for each epoch.
    pub epochs: Vec<EpochReport>,
    /// The epoch whose weights were kept.
    pub best_epoch: u32,
    /// Steps taken.
    pub steps: u64,
    /// Rows seen.
    pub rows: u64,
}
