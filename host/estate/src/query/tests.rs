use super::*;
use crate::trial::{Trial, people};

async fn run(trial: &Trial, sql: &str, tables: &[(&str, &Dataset)]) -> Result<Dataset, QueryError> {
    let tables: Vec<(String, &Dataset)> = tables
        .iter()
        .map(|(name, dataset)| ((*name).to_owned(), *dataset))
        .collect();
    trial.estate.query("result", sql, &tables, None).await
}

#[tokio::test]
async fn a_select_makes_a_dataset() {
    let trial = Trial::start();
    let people = trial.people("people", 100).await;
    let sql =
        "SELECT id * 2 AS double, \"City\" AS city FROM people WHERE age >= 78 ORDER BY id DESC";
    let result = run(&trial, sql, &[("people", &people)])
        .await
        .expect("runs");
    assert_eq!(
        (result.name.as_str(), result.rows, result.sql.as_deref()),
        ("result", 2, Some(sql))
    );
    assert_eq!(trial.texts(&result, "double").await, ["158", "156"]);
    assert_eq!(trial.texts(&result, "city").await, ["Lyon", "Ulm"]);
}

#[tokio::test]
async fn a_union_keeps_the_order_of_its_parts_and_gives_one_digest() {
    let trial = Trial::start();
    let rows: Vec<_> = (0..6)
        .map(|part| people(part * 20_000, (part + 1) * 20_000))
        .collect();
    let schema = rows[0].schema();
    let mut tables = Vec::new();
    for part in &rows {
        tables.push(
            trial
                .dataset("part", &schema, std::slice::from_ref(part))
                .await,
        );
    }
    let names = ["a", "b", "c", "d", "e", "f"];
    let named: Vec<(&str, &Dataset)> = names.into_iter().zip(&tables).collect();
    let union = names
        .map(|name| format!("SELECT * FROM {name}"))
        .join(" UNION ALL ");
    let whole = trial.dataset("whole", &schema, &rows).await;
    for _ in 0..3 {
        assert_eq!(
            run(&trial, &union, &named).await.expect("runs").digest,
            whole.digest
        );
    }

    let grouped = format!(
        "SELECT \"City\", sum(age) AS total, count(*) AS n FROM ({union}) GROUP BY \"City\""
    );
    let first = run(&trial, &grouped, &named).await.expect("runs");
    assert_eq!(
        trial.texts(&first, "City").await,
        ["Ulm", "Lyon", "Oslo"],
        "in order of appearance"
    );
    for _ in 0..3 {
        assert_eq!(
            run(&trial, &grouped, &named).await.expect("runs").digest,
            first.digest
        );
    }

    let joined = format!("SELECT u.id, a.age FROM ({union}) u JOIN a ON u.id = a.id LIMIT 10");
    let first = run(&trial, &joined, &named).await.expect("runs");
    assert_eq!(first.rows, 10);
    assert_eq!(
        run(&trial, &joined, &named).await.expect("runs").digest,
        first.digest
    );

    let distinct = format!("SELECT DISTINCT \"City\" FROM ({union}) LIMIT 2");
    let distinct = run(&trial, &distinct, &named).await.expect("runs");
    assert_eq!(trial.texts(&distinct, "City").await, ["Ulm", "Lyon"]);
}

#[tokio::test]
async fn columns_are_brought_to_the_kinds_of_plugins() {
    let trial = Trial::start();
    let people = trial.people("people", 20).await;
    let sql = "SELECT count(*) AS n, CAST(3 AS SMALLINT) AS small, CAST(1.5 AS DECIMAL(5, 2)) AS price, \
               CAST(0.5 AS REAL) AS half, NULL AS nothing, max(\"City\") || '!' AS city, true AS yes, \
               DATE '2024-02-29' AS day, TIMESTAMP '2024-02-29 12:00:00' AS moment FROM people";
    let result = run(&trial, sql, &[("people", &people)])
        .await
        .expect("runs");
    let kinds: Vec<Kind> = sandcast_sandbox::fields_of(&result.schema)
        .expect("kinds")
        .iter()
        .map(|field| field.kind)
        .collect();
    use Kind::{Boolean, Date32, Float64, Int64, TimestampUs, Utf8};
    assert_eq!(
        kinds,
        [
            Int64,
            Int64,
            Float64,
            Float64,
            Utf8,
            Utf8,
            Boolean,
            Date32,
            TimestampUs
        ]
    );
    assert_eq!(trial.texts(&result, "price").await, ["1.5"]);
    assert_eq!(trial.texts(&result, "city").await, ["Ulm!"]);
    assert_eq!(
        trial.texts(&result, "moment").await,
        ["2024-02-29T12:00:00Z"]
    );
}

#[tokio::test]
async fn a_dataset_without_rows_is_a_table_too() {
    let trial = Trial::start();
    let none = trial.dataset("none", &people(0, 1).schema(), &[]).await;
    let result = run(&trial, "SELECT age, id FROM none", &[("none", &none)])
        .await
        .expect("runs");
    assert_eq!((result.rows, result.schema.fields().len()), (0, 2));
    let result = run(&trial, "SELECT count(*) AS n FROM none", &[("none", &none)])
        .await
        .expect("runs");
    assert_eq!(trial.texts(&result, "n").await, ["0"]);
}

#[tokio::test]
async fn a_wrong_name_is_answered_with_the_nearest() {
    let trial = Trial::start();
    let people = trial.people("people", 20).await;
    let tables = [("people", &people), ("Web", &people)];
    for (sql, wanted) in [
        (
            "SELECT agee FROM people",
            "the sql of dataset `result` is wrong: there is no column agee; did you mean age?; there are: people(id, \
             age, \"City\"), \"Web\"(id, age, \"City\")",
        ),
        (
            "SELECT p.ids FROM people p",
            "there is no column ids; did you mean id?",
        ),
        (
            "SELECT City FROM people",
            "there is no column city; did you mean \"City\"? names that are not in lower case",
        ),
        (
            "SELECT income FROM people",
            "there is no column income; there are: people(",
        ),
        (
            "SELECT id FROM peple",
            "there is no table peple; did you mean people?; there are:",
        ),
        (
            "SELECT id FROM Web",
            "there is no table web; did you mean \"Web\"? names that are not in lower case",
        ),
        ("SELECT id FROM people WHERE nosuch(id) > 1", "nosuch"),
    ] {
        let message = run(&trial, sql, &tables).await.expect_err(sql).to_string();
        assert!(message.contains(wanted), "{sql}: {message}");
    }
    for sql in ["SELEC id", "SELECT id FROM people WHERE", ""] {
        let error = run(&trial, sql, &tables).await.expect_err(sql);
        assert!(
            matches!(
                error,
                QueryError::Sql { .. } | QueryError::NotASelect { .. }
            ),
            "{sql}: {error}"
        );
    }
}

#[tokio::test]
async fn nothing_but_a_select_is_run() {
    let trial = Trial::start();
    let people = trial.people("people", 20).await;
    let secret = trial.folder.path().join("secret.csv");
    std::fs::write(&secret, "a\n1\n").expect("writes");
    let target = trial.folder.path().join("stolen");
    let (secret, target) = (secret.display(), target.display());
    for sql in [
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW t AS SELECT 1 AS a",
        "DROP TABLE people",
        "INSERT INTO people VALUES (1, 2, 'x')",
        "DELETE FROM people",
        "UPDATE people SET age = 1",
        "SET datafusion.execution.target_partitions = 8",
        "EXPLAIN SELECT 1",
        "SHOW TABLES",
        "SELECT 1 AS a; SELECT 2 AS a",
        "SELECT id INTO t FROM people",
        &format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{secret}'"),
        &format!("COPY people TO '{target}'"),
        &format!("COPY (SELECT * FROM people) TO '{target}' STORED AS CSV"),
        &format!("SELECT * FROM '{secret}'"),
        &format!("SELECT * FROM read_csv('{secret}')"),
        &format!("SELECT * FROM \"file://{secret}\""),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
    ] {
        let error = run(&trial, sql, &[("people", &people)])
            .await
            .expect_err(sql);
        let refused = matches!(
            error,
            QueryError::Sql { .. } | QueryError::NotASelect { .. }
        );
        assert!(refused, "{sql}: {error}");
    }
    assert!(!trial.folder.path().join("stolen").exists());
    let error = run(&trial, "DROP TABLE people", &[("people", &people)])
        .await
        .expect_err("no select");
    assert_eq!(
        error.to_string(),
        "the sql of dataset `result` must be one SELECT, not DROP TABLE"
    );
}

#[tokio::test]
async fn what_changes_from_run_to_run_is_refused() {
    let trial = Trial::start();
    let people = trial.people("people", 20).await;
    for (sql, function) in [
        ("SELECT id, random() AS r FROM people", "random"),
        (
            "SELECT id FROM people WHERE now() > TIMESTAMP '2020-01-01'",
            "now",
        ),
        ("SELECT current_date AS today FROM people", "current_date"),
        (
            "SELECT id FROM people WHERE id IN (SELECT CAST(random() * 10 AS BIGINT))",
            "random",
        ),
        ("SELECT uuid() AS u", "uuid"),
    ] {
        match run(&trial, sql, &[("people", &people)]).await {
            Err(QueryError::Volatile {
                function: found, ..
            }) => assert_eq!(found, function, "{sql}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_result_that_plugins_cannot_take_is_refused() {
    let trial = Trial::start();
    let people = trial.people("people", 20).await;
    let tables = [("people", &people)];
    let error = run(&trial, "SELECT make_array(id) AS ids FROM people", &tables)
        .await
        .expect_err("a list");
    assert!(
        matches!(&error, QueryError::ColumnType { column, .. } if column == "ids"),
        "{error}"
    );
    let error = run(
        &trial,
        "SELECT a.id, b.id FROM people a JOIN people b ON a.id = b.id",
        &tables,
    )
    .await
    .expect_err("twice");
    assert!(
        matches!(&error, QueryError::ColumnTwice { column, .. } if column == "id"),
        "{error}"
    );
    let error = run(
        &trial,
        "SELECT CAST(\"City\" AS BIGINT) AS c FROM people",
        &tables,
    )
    .await
    .expect_err("no number");
    assert!(
        matches!(&error, QueryError::Run { message, .. } if message.contains("Ulm")),
        "{error}"
    );
    let twice = [("people", &people), ("people", &people)];
    assert!(matches!(
        run(&trial, "SELECT 1 AS a", &twice).await,
        Err(QueryError::TableTwice { .. })
    ));
}

#[tokio::test]
async fn a_query_that_needs_too_much_memory_is_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = crate::EstateOptions {
        query_memory_bytes: 1 << 20,
        ..crate::EstateOptions::default()
    };
    let trial = Trial {
        estate: Estate::with_options(folder.path(), options).expect("opens"),
        folder,
    };
    let people = trial.people("people", 200_000).await;
    let tables = [("people", &people)];
    let sql = "SELECT a.id FROM people a JOIN people b ON a.id = b.id";
    let error = run(&trial, sql, &tables)
        .await
        .expect_err("a hash table of 200,000 rows is too large");
    assert!(
        matches!(&error, QueryError::Run { message, .. } if message.contains("more memory")),
        "{error}"
    );
}
