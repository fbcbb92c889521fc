//! The table of what works where, in the README's *More than one machine*: a statement a row.
//!
//! `{data}` is the folder of the table's files. They read the table `test` (file, label, image) with the model `m`, which `wae.model` names.

/// A row of the table: what it is about, as the README's first column has it, and a statement that gives rows.
pub const CELLS: [(&str, &str); 13] = [
    ("scalar functions", "SELECT wae_encode(image) AS z, wae_detect(image) AS d FROM test ORDER BY d.cost LIMIT 2"),
    ("named arguments in calls", "SELECT max(wae_reconstruction_cost(image => image, model => 'm')) AS c FROM test"),
    (
        "aggregates",
        "SELECT auroc(wae_reconstruction_cost(image), label > 4) AS a, wae_mmd(wae_encode(image)) AS m FROM test",
    ),
    ("`wae_fdr`", "SELECT min(q) AS q FROM (SELECT wae_fdr(wae_p_value(image)) OVER () AS q FROM test)"),
    ("prepared statements", "EXECUTE costs('m')"),
    ("`SET wae.*`", "SHOW wae.model"),
    (
        "`wae_train`",
        "SELECT epoch FROM wae_train((SELECT image FROM test WHERE label = 1), model => 'new', network => '8', \
     epochs => 1, overwrite => true)",
    ),
    ("`wae_calibrate`", "SELECT rows FROM wae_calibrate((SELECT image FROM test WHERE label = 1), model => 'new')"),
    ("`wae_sample`", "SELECT wae_reconstruction_cost(image) AS c FROM wae_sample(3)"),
    ("`wae_models`, `wae_history`", "SELECT name FROM wae_models() WHERE name IN (SELECT 'm' FROM wae_history('m'))"),
    ("`read_images`", "SELECT count(*) AS n FROM read_images('{data}/*.parquet')"),
    (
        "these beside other tables",
        "SELECT image_sharpness(image) AS s FROM wae_sample(3) UNION ALL \
     SELECT image_sharpness(image) FROM test",
    ),
    ("a file's path in FROM", "SELECT max(wae_reconstruction_cost(image)) AS c FROM '{data}/0.parquet'"),
];

/// What has to come before the row `prepared statements`.
pub const PREPARE: &str = "PREPARE costs(VARCHAR) AS SELECT max(wae_reconstruction_cost(image, $1)) AS c FROM test";
