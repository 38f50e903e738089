//! Skeleton.
use sandcast_sdk::columns::{Rows, field};
use sandcast_sdk::{Chunk, Connector, Failure, Field, Kind, ScanRequest, Split};

#[derive(serde::Deserialize)]
struct Config {
    rows: u32,
}

struct Counter {
    config: Config,
    done: bool,
}

impl Connector for Counter {
    type Config = Config;

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(Self { config, done: false })
    }

    fn schema(&mut self) -> Result<Vec<Field>, Failure> {
        Ok(vec![field("number", Kind::Int64, false)])
    }

    fn partitions(&mut self) -> Result<Vec<Split>, Failure> {
        Ok(vec![Split::whole("all")])
    }

    fn scan(&mut self, _request: ScanRequest) -> Result<(), Failure> {
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let numbers: Vec<i64> = (0..i64::from(self.config.rows)).collect();
        Ok(Some(Rows::new().int64("number", numbers).into_chunk()?))
    }
}

sandcast_sdk::export_connector!(Counter);
