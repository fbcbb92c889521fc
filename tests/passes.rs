//! One pass through the network a row: how many images each shape of query runs through it, and that the rows are those
//! of a context without the optimiser's rule.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/session.rs"]
mod session;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr, collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_wae::{WaePassExec, distributed};
use rstest::rstest;
use session::{ROOT, TEST, TRAIN, query, with_plugin};
use tempfile::TempDir;
use tokio::sync::OnceCell;

const RULE: &str = "wae_share_passes";

/// Two models, `m` of the session and `n`, a third, `f`, of features by a pretrained network, and a file of the 1,500
/// clothes with an `id` from 0 and a `label` of 150 each.
static DATA: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = TempDir::new().unwrap();
    // A thread of its own, since a test's thread runs a runtime already.
    let prepared = std::thread::scope(|scope| scope.spawn(|| runtime().block_on(prepare(dir.path()))).join());
    prepared.unwrap();
    dir
});

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

async fn prepare(dir: &Path) {
    let ctx = session::context(dir).await;
    let rows = format!("SELECT row_number() OVER () - 1 AS id, label, image FROM '{TEST}'");
    query(&ctx, &format!("COPY ({rows}) TO '{}/clothes.parquet'", dir.display())).await;
    let few = format!(
        "SELECT id, label, image FROM (SELECT *, row_number() OVER (PARTITION BY label ORDER BY id) AS n FROM ({rows}))
         WHERE n <= 15"
    );
    query(&ctx, &format!("COPY ({few}) TO '{}/few.parquet'", dir.display())).await;
    for (name, latent_dim) in [("m", 8), ("n", 3)] {
        let train = format!(
            "SELECT * FROM wae_train((SELECT image FROM '{TRAIN}' LIMIT 600), model => '{name}', epochs => 1,
                 network => '8,16', holdout => 0.2, latent_dim => {latent_dim})"
        );
        query(&ctx, &train).await;
    }
    query(&ctx, &format!("SET wae.weights_dir = '{ROOT}/fixtures/backbones'")).await;
    let train = format!(
        "SELECT * FROM wae_train((SELECT F FROM (SELECT image FROM '{TRAIN}' LIMIT 100)), model => 'f',
             input => 'features', epochs => 1, latent_dim => 2)"
    );
    query(&ctx, &short(&train)).await;
}

/// A context that tests share, with one or two partitions, with the rule or without.
async fn shared(partitions: usize, rule: bool) -> &'static SessionContext {
    static CONTEXTS: [OnceCell<SessionContext>; 4] = [const { OnceCell::const_new() }; 4];
    let make = async || {
        let ctx = context(partitions).await;
        assert!(rule || ctx.remove_optimizer_rule(RULE));
        ctx
    };
    CONTEXTS[(partitions - 1) * 2 + usize::from(rule)].get_or_init(make).await
}

/// A context with the tables `t`, in memory, and `p`, the file itself; `s` and `q` have a tenth of the rows of each.
async fn context(partitions: usize) -> SessionContext {
    let config = SessionConfig::new().with_batch_size(100).with_target_partitions(partitions);
    let ctx = with_plugin(SessionContext::new_with_config(config), DATA.path()).await;
    for (table, file) in [("p", "clothes"), ("q", "few")] {
        let path = DATA.path().join(format!("{file}.parquet"));
        ctx.register_parquet(table, path.to_str().unwrap(), Default::default()).await.unwrap();
    }
    for sql in [
        "SET wae.model = 'm'",
        &format!("SET wae.weights_dir = '{ROOT}/fixtures/backbones'"),
        "SET datafusion.execution.parquet.pushdown_filters = true",
        "CREATE TABLE t AS SELECT * FROM p ORDER BY id",
        "CREATE TABLE s AS SELECT * FROM q ORDER BY id",
        "PREPARE prepared AS SELECT wae_encode(image, $1) FROM t WHERE wae_is_outlier(image, 0.1, $1)",
        "CREATE VIEW v AS SELECT id, label, image AS picture, wae_reconstruction_cost(image) AS cost FROM t",
    ] {
        query(&ctx, sql).await;
    }
    ctx
}

/// Runs a query; gives the images that went through the network, and the plan.
async fn scored(ctx: &SessionContext, sql: &str) -> (usize, Vec<RecordBatch>, String) {
    let frame = ctx.sql(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let plan = frame.create_physical_plan().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let rows = collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let text = displayable(plan.as_ref()).indent(false).to_string();
    let mut scored = 0;
    plan.apply(|node| {
        if let Some(pass) = node.downcast_ref::<WaePassExec>() {
            scored += pass.rows_scored();
        } else {
            assert_no_pass(node.as_ref(), &text);
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    (scored, rows, text)
}

/// Outside of [`WaePassExec`], functions of an image take a column of passes.
fn assert_no_pass(node: &dyn ExecutionPlan, plan: &str) {
    let check = |expr: &Arc<dyn PhysicalExpr>| {
        expr.apply(|expr| {
            if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>()
                && (call.name().starts_with("wae_") || call.name() == "image_features")
                && call.name() != "wae_decode"
            {
                let of_pass =
                    call.args()[0].downcast_ref::<Column>().is_some_and(|c| c.name().starts_with("__wae_pass_"));
                assert!(of_pass, "{call}\n{plan}");
            }
            Ok(TreeNodeRecursion::Continue)
        })
    };
    node.apply_expressions(&mut |expr| check(expr)).unwrap();
}

/// The images that each query must run through the network. `C` stands for the cost, `I` for the image, `F` for its
/// features by a pretrained network.
#[rstest]
#[case::select("SELECT C FROM t", 1500)]
#[case::all_functions(
    "SELECT wae_encode(I), wae_reconstruct(I), C, wae_p_value(I), wae_is_outlier(I, 0.05), wae_is_outlier(I, 0.1) FROM t",
    1500
)]
#[case::select_where("SELECT C FROM t WHERE C > 30", 1500)]
#[case::functions_across_nodes("SELECT wae_encode(I) FROM t WHERE wae_is_outlier(I, 0.1)", 1500)]
#[case::order_by("SELECT id FROM t ORDER BY C", 1500)]
#[case::order_by_limit("SELECT id, C AS c FROM t ORDER BY c DESC LIMIT 10", 1500)]
#[case::order_by_limit_hidden("SELECT id, wae_encode(I) FROM t ORDER BY C DESC LIMIT 10", 1500)]
#[case::where_order_by_limit("SELECT id, C FROM t WHERE C > 20 ORDER BY C LIMIT 10", 1500)]
#[case::where_order_by_limit_of_a_file("SELECT id, C FROM p WHERE C > 20 AND label < 5 ORDER BY C LIMIT 10", 750)]
#[case::subquery("SELECT * FROM (SELECT id, C AS c, I FROM t) WHERE c > 20 ORDER BY wae_p_value(I), id LIMIT 5", 1500)]
#[case::view("SELECT id, cost, wae_encode(picture) FROM v WHERE cost > 20 AND wae_p_value(picture) < 0.5", 1500)]
#[case::cheap_first("SELECT id FROM t WHERE id < 5 AND C > 1", 5)]
#[case::cheap_last("SELECT id, wae_p_value(I) FROM t WHERE C > 1 AND id < 5", 5)]
#[case::cheap_first_of_a_file("SELECT C FROM p WHERE C > 1 AND id < 5", 5)]
#[case::or_decided("SELECT id FROM t WHERE id < 1400 OR C > 1", 100)]
#[case::or_and_select("SELECT C FROM t WHERE id < 1400 OR C > 1", 1500)]
#[case::or_and_narrow_select("SELECT CASE WHEN id < 50 THEN C END FROM t WHERE id < 1400 OR C > 1", 150)]
#[case::case_arm("SELECT CASE WHEN id < 10 THEN C ELSE 0 END FROM t", 10)]
#[case::case_arms("SELECT CASE WHEN id < 10 THEN C WHEN id < 30 THEN wae_p_value(I) ELSE 0 END FROM t", 30)]
#[case::case_condition("SELECT CASE WHEN C > 20 THEN wae_p_value(I) ELSE 0 END FROM t", 1500)]
#[case::case_unreachable("SELECT CASE WHEN id >= 0 THEN 1 ELSE C END FROM t", 0)]
#[case::case_arms_apart(
    "SELECT CASE WHEN id < 10 THEN C END, CASE WHEN id BETWEEN 5 AND 19 THEN wae_encode(I) END FROM t",
    20
)]
#[case::coalesce("SELECT coalesce(nullif(id, 7), C) FROM t", 1)]
#[case::aggregate("SELECT avg(C) FROM t WHERE C > 20", 1500)]
#[case::aggregate_filter(
    "SELECT avg(C) FILTER (WHERE id < 10), max(wae_p_value(I)) FILTER (WHERE id BETWEEN 5 AND 14) FROM t",
    15
)]
#[case::group_by("SELECT wae_is_outlier(I, 0.1), count(*), avg(C) FROM t GROUP BY wae_is_outlier(I, 0.1)", 1500)]
#[case::having("SELECT label, avg(C) FROM t WHERE label < 4 GROUP BY label HAVING max(C) > 30 AND avg(C) > 1", 600)]
// A row for the condition, which DataFusion moves below GROUP BY, and a group above it.
#[case::having_of_the_group("SELECT I, C, count(*) FROM t WHERE id < 100 GROUP BY I HAVING C > 20", 200)]
#[case::distinct("SELECT DISTINCT round(C) FROM t WHERE C > 20", 1500)]
#[case::window("SELECT id, rank() OVER (ORDER BY C), avg(C) OVER (PARTITION BY label) FROM t WHERE C > 1", 1500)]
#[case::two_models(
    "SELECT C, wae_reconstruction_cost(I, 'n') FROM t WHERE C > 1 AND wae_reconstruction_cost(I, 'n') > 1",
    3000
)]
#[case::model_by_name("SELECT wae_encode(I, 'm'), wae_encode(I) FROM t", 1500)]
#[case::nested(
    "SELECT wae_reconstruction_cost(wae_reconstruct(I)), wae_encode(wae_reconstruct(I)), C FROM t WHERE id < 50",
    100
)]
#[case::expression(
    "SELECT wae_encode(image_decode(I, 28, 28, 1)) FROM t WHERE wae_p_value(image_decode(I, 28, 28, 1)) < 0.5",
    1500
)]
#[case::field(
    "SELECT wae_encode(I['bytes']) FROM t WHERE wae_p_value(I['bytes']) < 0.5 ORDER BY wae_reconstruction_cost(I['bytes']), id LIMIT 3",
    1500
)]
#[case::join_after_a_filter(
    "SELECT a.id, wae_encode(a.I) FROM t a JOIN t b ON a.id = b.label WHERE wae_p_value(a.I) > 0.001 AND a.id < 5",
    5
)]
#[case::join_sides_apart(
    "SELECT count(*) FROM t a JOIN t b ON a.id = b.id WHERE wae_p_value(a.I) > 0.001 AND wae_p_value(b.I) > 0.001 AND a.id < 5",
    10
)]
#[case::join_of_all_pairs(
    "SELECT count(*) FROM t a JOIN t b ON wae_reconstruction_cost(a.I) < wae_reconstruction_cost(b.I) WHERE a.id < 10 AND b.id < 20",
    30
)]
#[case::outer_join(
    "SELECT b.id, wae_p_value(b.I) FROM t a LEFT JOIN (SELECT * FROM t WHERE C > 1 AND id < 5) b ON a.id = b.id",
    5
)]
#[case::union("SELECT wae_encode(I) FROM (SELECT I FROM t UNION ALL SELECT I FROM p) WHERE C > 10", 3000)]
#[case::unions_branches("SELECT C FROM t WHERE id < 3 UNION ALL SELECT C FROM p WHERE id < 4 AND C > 1", 7)]
#[case::scalar_subquery("SELECT count(*) FROM t WHERE C > (SELECT avg(C) FROM t)", 3000)]
#[case::in_subquery("SELECT C FROM t WHERE id IN (SELECT id FROM p WHERE C > 1 AND id < 5) AND id < 7", 10)]
#[case::alpha_of_a_column("SELECT wae_is_outlier(I, 0.1 + label / 100.0), C FROM t", 1500)]
#[case::alpha_of_a_score("SELECT wae_is_outlier(I, 0.5 + wae_p_value(I) / 10) FROM t", 1500)]
#[case::null_images(
    "SELECT wae_encode(picture), wae_p_value(picture) FROM (SELECT CASE WHEN id < 9 THEN I['bytes'] END AS picture FROM t)",
    9
)]
#[case::prepared("EXECUTE prepared('m')", 1500)]
#[case::correlated(
    "SELECT id, C FROM t a WHERE EXISTS (SELECT 1 FROM p b WHERE b.id = a.id AND wae_p_value(b.I) < 2 AND b.id < 5) AND id < 9",
    10
)]
#[case::cte_twice(
    "WITH c AS (SELECT id, C AS c, I FROM t WHERE id < 10) SELECT a.id, b.c, wae_encode(a.I) FROM c a JOIN c b ON a.id = b.id WHERE a.c > 1",
    20
)]
#[case::using("SELECT C FROM t JOIN (SELECT id FROM p WHERE id < 5) AS few USING (id)", 5)]
#[case::semi_join("SELECT C FROM t WHERE C > 1 AND id IN (SELECT label FROM p)", 1500)]
#[case::full_join(
    "SELECT wae_p_value(a.I), wae_p_value(b.I) FROM (SELECT * FROM t WHERE C > 1 AND id < 9) a FULL JOIN (SELECT * FROM t WHERE C > 1 AND id > 5 AND id < 20) b ON a.id = b.id",
    23
)]
#[case::unnested("SELECT unnest(wae_encode(I)) FROM t WHERE C > 20", 1500)]
#[case::unions_functions(
    "SELECT wae_reconstruct(I) FROM (SELECT I FROM t WHERE C > 10 UNION ALL SELECT I FROM p WHERE wae_encode(I)[1] > 0)",
    3000
)]
#[case::union_where_one_side_has_none(
    "SELECT C FROM (SELECT I FROM t WHERE C > 0 AND id < 50 UNION ALL SELECT I FROM p WHERE id < 20)",
    120
)]
#[case::union_of_a_join(
    "SELECT wae_encode(I) FROM (SELECT a.I FROM (SELECT * FROM t WHERE id < 3) a JOIN (SELECT * FROM t WHERE id < 2) b ON wae_reconstruction_cost(a.I) < 1e9 + wae_reconstruction_cost(b.I) UNION ALL SELECT I FROM t WHERE id < 4 AND wae_p_value(I) < 2)",
    9
)]
#[case::union_distinct(
    "SELECT round(C) FROM t WHERE C > 20 UNION SELECT round(C) FROM t WHERE wae_p_value(I) < 0.1",
    3000
)]
#[case::order_of_a_file("SELECT id FROM p ORDER BY C, id LIMIT 3", 1500)]
#[case::order_by_case("SELECT id FROM t ORDER BY CASE WHEN id < 10 THEN C END, id LIMIT 5", 10)]
#[case::filter_above_a_limit(
    "SELECT C FROM (SELECT * FROM t WHERE C > 1 ORDER BY id LIMIT 90) WHERE wae_p_value(I) < 0.9",
    1500
)]
#[case::every_score(
    "SELECT wae_detect(I), wae_anomaly_map(I), wae_cost_map(I), wae_latent_distance(I), wae_anomaly_score(I) FROM t
     WHERE wae_is_outlier(I, 0.1, 'm', 'cost') OR wae_p_value(I, 'm', 'latent_distance') < 0.1 OR C > 20",
    1500
)]
#[case::masks_and_regions(
    "SELECT wae_anomaly_score(I), wae_anomaly_map(I), wae_anomaly_mask(I, 0.1), wae_anomaly_mask(I), wae_anomaly_regions(I, 0.1), wae_p_value(I) FROM t
     WHERE wae_is_outlier(I, 0.1)",
    1500
)]
#[case::metrics_of_maps(
    "SELECT pixel_auroc(wae_anomaly_map(I), wae_anomaly_mask(I, 0.1)), round(aupro(wae_cost_map(I), wae_anomaly_mask(I, 0.1)), 9) FROM t",
    1500
)]
#[case::group_of_expressions(
    "SELECT label % 2, round(C), count(*), max(wae_encode(I)[1]) FROM t GROUP BY label % 2, round(C) HAVING min(wae_p_value(I)) < 0.5",
    1500
)]
#[case::count_distinct("SELECT count(DISTINCT round(C)), sum(C) FROM t", 1500)]
#[case::explain("EXPLAIN SELECT C FROM t WHERE C > 1", 0)]
#[case::features("SELECT F FROM s", 150)]
#[case::features_where("SELECT F FROM s WHERE F[1] > 0.1", 150)]
#[case::features_order_by("SELECT id FROM q ORDER BY F[1], id", 150)]
#[case::features_order_by_limit("SELECT id, F AS f FROM s ORDER BY f[2] DESC, id LIMIT 10", 150)]
#[case::features_where_order_by_limit(
    "SELECT id, F FROM q WHERE F[1] > 0.1 AND label < 5 ORDER BY F[2], id LIMIT 10",
    75
)]
#[case::five_functions_of_features(
    "SELECT array_length(F), F[1] + F[2], wae_encode(F, 'f') FROM t WHERE F[3] >= 0 AND F[5] > -1 AND id < 50 ORDER BY F[4], id",
    100
)]
#[case::features_cheap_first("SELECT F FROM t WHERE id < 5 AND F[1] > -1", 5)]
#[case::features_cheap_last("SELECT F FROM p WHERE F[1] > -1 AND id < 5", 5)]
#[case::features_case_arms("SELECT CASE WHEN id < 10 THEN F[1] WHEN id < 30 THEN F[2] ELSE 0 END FROM t", 30)]
#[case::features_having("SELECT label, max(F[1]) FROM s WHERE label < 4 GROUP BY label HAVING min(F[2]) >= 0", 60)]
#[case::features_join(
    "SELECT a.id, image_features(a.I, 'resnet-timm', 'pooled', 28) FROM t a JOIN t b ON a.id = b.label
     WHERE image_features(a.I, 'resnet-timm', 'pooled', 28)[1] > -1 AND a.id < 5",
    5
)]
#[case::features_union("SELECT F FROM (SELECT I FROM s UNION ALL SELECT I FROM q) WHERE F[1] > 0.1", 300)]
// One call, however it is written: the size, the layer, the version of the weights.
#[case::features_of_one_version(
    "SELECT F FROM s WHERE image_features(I, 'resnet-timm@sha256:787e66148c303a3641e9b9ba8db5dbd1229dfa352ceca8fb542f564c64afa987', ' pooled', '28x28')[1] > 0.1",
    150
)]
#[case::features_by_default(
    "SELECT image_features(I, 'resnet-timm')[1] FROM t WHERE image_features(I, 'resnet-timm', 'layer2+layer3', NULL)[2] > 0 AND id < 50",
    50
)]
#[case::features_of_two_layers(
    "SELECT F FROM t WHERE image_features(I, 'resnet-timm', 'layer1', 28)[1] > -1 AND id < 50",
    100
)]
#[case::features_beside_a_model("SELECT F, C FROM t WHERE C > 0 AND F[1] > -1 AND id < 50", 100)]
#[case::a_model_of_features(
    "SELECT wae_reconstruction_cost(F, 'f'), wae_encode(F, 'f'), F[1] FROM t WHERE id < 50",
    100
)]
#[case::a_model_of_features_alone("SELECT id FROM t WHERE id < 50 ORDER BY wae_reconstruction_cost(F, 'f'), id", 100)]
#[tokio::test(flavor = "multi_thread")]
async fn each_image_goes_through_the_network_once(#[case] sql: &str, #[case] rows: usize) {
    let sql = short(sql);
    for partitions in [1, 2] {
        let (count, _, plan) = scored(shared(partitions, true).await, &sql).await;
        assert_eq!(count, rows, "{sql}\n{plan}");
        same_rows(partitions, &sql).await;
    }
}

/// Queries in which the rule leaves calls as they are, and rows that it must not change.
#[rstest]
#[case::rollup("SELECT label, avg(C) FROM t WHERE C > 20 GROUP BY ROLLUP (label)")]
#[case::rollup_of_a_score(
    "SELECT wae_is_outlier(I, 0.1), count(*) FROM t GROUP BY ROLLUP (wae_is_outlier(I, 0.1), label)"
)]
#[case::groups_of_one_image(
    "SELECT x, count(*), sum(C) FILTER (WHERE label < 3), CASE WHEN x THEN C END
     FROM (SELECT I, label, id < 0 AS x FROM t WHERE id < 20 UNION ALL SELECT I, label + 4, id < 0 FROM t WHERE id < 20)
     GROUP BY I, x"
)]
#[case::groups_of_equal_images_in_different_batches(
    "SELECT count(*), sum(n) FROM (SELECT I, count(*) AS n, max(wae_p_value(I)) FROM
     (SELECT I FROM t UNION ALL SELECT I FROM (SELECT I FROM t WHERE label > 2 ORDER BY label DESC, id))
     GROUP BY I HAVING C > 0)"
)]
#[case::groups_above_a_conditional_filter(
    "SELECT count(*), max(C) FROM (SELECT I, label FROM t WHERE id < 20 UNION ALL SELECT I, label + 4 FROM t WHERE id < 20)
     WHERE label < 3 OR C > 0 GROUP BY I"
)]
#[case::features_of_rollup("SELECT label, max(F[1]) FROM t WHERE id < 99 AND F[2] > 0.1 GROUP BY ROLLUP (label)")]
#[case::features_of_nothing("SELECT image_features(NULL, 'resnet-timm', 'pooled', 28) FROM t LIMIT 3")]
#[case::features_of_null_images(
    "SELECT image_features(picture, 'vit-timm', 'cls', 28) FROM (SELECT id, CASE WHEN id < 9 THEN I['bytes'] END AS picture FROM t WHERE id < 20)
     WHERE image_features(picture, 'vit-timm', 'cls', 28)[1] IS NULL OR id > 3"
)]
#[case::map_of_features(
    "SELECT image_features(I, 'resnet-timm', 'layer2', 28) AS f FROM t WHERE id < 9 ORDER BY F[1], id LIMIT 5"
)]
#[case::distinct_on("SELECT DISTINCT ON (label) label, C FROM t WHERE C > 20 ORDER BY label, C")]
#[case::join_on_equal_scores(
    "SELECT a.id FROM t a JOIN p b ON round(wae_reconstruction_cost(a.I)) = round(wae_reconstruction_cost(b.I)) WHERE a.id < 50"
)]
#[case::join_filter(
    "SELECT a.id FROM t a LEFT JOIN p b ON a.label = b.label AND wae_p_value(a.I) < wae_p_value(b.I) WHERE a.id < 20 AND b.id < 20"
)]
#[case::outer_join_of_what_is_not_null(
    "SELECT wae_p_value(coalesce(b.I, a.I)) FROM t a LEFT JOIN (SELECT * FROM t WHERE wae_p_value(I) < 0.5) b ON a.id = b.id"
)]
#[case::literals("SELECT wae_encode(NULL), wae_p_value(NULL) IS NULL FROM t LIMIT 3")]
#[case::decoded("SELECT wae_reconstruction_cost(wae_decode(wae_encode(I))) FROM t WHERE wae_encode(I)[1] > 0")]
#[case::intersect("SELECT round(C) FROM t WHERE C > 20 INTERSECT SELECT round(C) FROM p WHERE wae_p_value(I) < 0.3")]
#[case::values("SELECT wae_encode(column1) FROM (VALUES (NULL), (NULL)) WHERE wae_p_value(column1) IS NULL")]
#[case::volatile("SELECT count(*) > 0 FROM t WHERE random() < 2 AND wae_p_value(I) < 0.5 OR random() > 2")]
#[case::lateral_rows(
    "SELECT a.id, s.p FROM (SELECT * FROM t WHERE id < 3) a, LATERAL (SELECT wae_p_value(b.I) AS p FROM p b WHERE b.id = a.id AND wae_p_value(b.I) < 2) s"
)]
#[case::recursive(
    "WITH RECURSIVE r AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n, wae_p_value(I) FROM r JOIN t ON r.n = t.id WHERE wae_p_value(I) < 1"
)]
#[tokio::test(flavor = "multi_thread")]
async fn other_queries_give_the_same_rows(#[case] sql: &str) {
    let sql = short(sql);
    for partitions in [1, 2] {
        same_rows(partitions, &sql).await;
    }
}

/// A query that stops early has run few images too many: `wae.batch_size` rows a partition, or a batch of the source.
#[rstest]
#[case::limit("SELECT C FROM t LIMIT 10", 10)]
#[case::limit_of_a_file("SELECT C FROM p LIMIT 10", 10)]
#[case::limit_of_features("SELECT F FROM p LIMIT 10", 10)]
#[case::limit_after_a_filter("SELECT C, wae_encode(I) FROM p WHERE C > 1 LIMIT 10", 40)]
#[case::limit_of_a_subquery(
    "SELECT wae_encode(I) FROM (SELECT I FROM t WHERE C > 1 LIMIT 10) WHERE wae_p_value(I) < 2",
    40
)]
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_stops_early(#[case] sql: &str, #[case] most: usize) {
    let sql = short(sql);
    let ctx = context(1).await;
    query(&ctx, "SET wae.batch_size = 20").await;
    let (count, _, plan) = scored(&ctx, &sql).await;
    assert!((10..=most).contains(&count), "{count}\n{plan}");
}

/// Another node gets a plan by the names of its functions and what their calls carry, optimised already, and may not
/// have the rules.
#[rstest]
#[case::without_the_rules(false)]
#[case::with_the_rules(true)]
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_travelled_gives_the_same_rows(#[case] rules: bool) {
    let ctx = context(2).await;
    for sql in [
        "SELECT wae_encode(I), C FROM t WHERE id < 900 AND wae_is_outlier(I, 0.2) ORDER BY C DESC LIMIT 20",
        "SELECT CASE WHEN id < 10 THEN wae_p_value(I) END FROM t WHERE id < 30",
        "SELECT wae_reconstruct(I) FROM t WHERE wae_reconstruction_cost(I, 'n') > 20",
        "SELECT F, image_features(I, 'resnet-timm', 'layer2', 28) FROM t WHERE id < 90 AND F[1] > 0.1 ORDER BY F[2] LIMIT 20",
        "SELECT CASE WHEN id < 10 THEN wae_reconstruction_cost(F, 'f') END FROM t WHERE id < 30",
    ] {
        let sql = short(sql);
        let state = ctx.state();
        let plan = state.optimize(ctx.sql(&sql).await.unwrap().logical_plan()).unwrap();
        assert!(plan.display_indent().to_string().contains("_pass("), "{}", plan.display_indent());
        let decoded = plan.transform_up_with_subqueries(|node| {
            node.map_expressions(|expr| {
                expr.transform_up(|expr| match expr {
                    Expr::ScalarFunction(call) => {
                        let bytes = distributed::encode_function(&call.func);
                        let decoded = distributed::decode_function(call.name(), &bytes)?;
                        let function = decoded.map_or(call.func, Arc::new);
                        let call = ScalarFunction::new_udf(function, call.args);
                        Ok(Transformed::yes(Expr::ScalarFunction(call)))
                    }
                    other => Ok(Transformed::no(other)),
                })
            })
        });
        let mut other = SessionStateBuilder::new_from_existing(state.clone());
        if !rules {
            let physical = state.physical_optimizers().iter().filter(|rule| rule.name() != "wae_passes").cloned();
            other = other.with_optimizer_rules(vec![]).with_physical_optimizer_rules(physical.collect());
        }
        let other = other.build();
        let plan = other.create_physical_plan(&decoded.unwrap().data).await.unwrap();
        let rows = collect(plan, other.task_ctx()).await.unwrap();
        assert!(cells(&rows) == cells(&query(&ctx, &sql).await), "{sql}");
    }
}

/// The rules are there once, and need no second round of the optimiser.
#[tokio::test(flavor = "multi_thread")]
async fn the_rules_are_registered_once() {
    let ctx = context(1).await;
    let id = ctx.state().session_id().to_owned();
    datafusion_wae::register_all(&ctx).unwrap();
    let state = ctx.state();
    assert_eq!(state.session_id(), id);
    assert_eq!(state.optimizers().iter().filter(|rule| rule.name() == RULE).count(), 1);
    assert_eq!(state.analyzer().rules.iter().filter(|rule| rule.name() == "wae_table_functions").count(), 1);
    assert_eq!(state.physical_optimizers().iter().filter(|rule| rule.name() == "wae_passes").count(), 1);
    query(&ctx, "SET datafusion.optimizer.max_passes = 1").await;
    let sql = short("SELECT wae_encode(I) FROM t WHERE id < 50 AND C > 20 ORDER BY C LIMIT 3");
    assert_eq!(scored(&ctx, &sql).await.0, 50);
    let nested = short("SELECT wae_encode(F, 'f') FROM t WHERE id < 50");
    assert_eq!(scored(&ctx, &nested).await.0, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_query_of_a_plan_counts_anew() {
    let ctx = context(1).await;
    let frame = ctx.sql(&short("SELECT C FROM t WHERE C > 1 AND id < 7")).await.unwrap();
    for _ in 0..2 {
        let plan = frame.clone().explain(false, true).unwrap().collect().await.unwrap();
        assert!(cells(&plan).concat().contains("rows_scored=7"), "{:?}", cells(&plan));
    }
}

/// A query with the names for which single letters stand.
fn short(sql: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut words = String::new();
    let mut word = String::new();
    for c in sql.chars().chain([' ']) {
        if is_name(c) {
            word.push(c);
            continue;
        }
        words += match word.as_str() {
            "C" => "wae_reconstruction_cost(image)",
            "I" => "image",
            "F" => "image_features(image, 'resnet-timm', 'pooled', 28)",
            other => other,
        };
        word.clear();
        words.push(c);
    }
    words
}

/// Compares a query's names, types and rows with those of a context without the rule.
async fn same_rows(partitions: usize, sql: &str) {
    let without = query(shared(partitions, false).await, sql).await;
    let with = query(shared(partitions, true).await, sql).await;
    if sql.starts_with("EXPLAIN") {
        return;
    }
    let schema = |batches: &[RecordBatch]| batches.first().map(|b| b.schema());
    if let (Some(a), Some(b)) = (schema(&with), schema(&without)) {
        let fields = |s: &datafusion::arrow::datatypes::Schema| {
            s.fields()
                .iter()
                .map(|f| (f.name().clone(), f.data_type().clone(), f.metadata().clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(fields(&a), fields(&b), "{sql}");
    }
    assert!(cells(&with) == cells(&without), "{sql}");
}

/// The rows as sorted text: only sorted queries have an order, and ties have none.
fn cells(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        rows.extend(
            (0..batch.num_rows()).map(|r| columns.iter().map(|c| c.value(r).to_string() + "|").collect::<String>()),
        );
    }
    rows.sort();
    rows
}

/// Tiles of large images are never all there: each batch has those of as many images as have 32 MB, or of one.
#[tokio::test]
async fn photographs_are_tiled_a_few_at_a_time() {
    let ctx = context(2).await;
    query(&ctx, "CREATE TABLE photos AS SELECT id, image_encode(image_resize(image, 3000, 2000), 'jpeg') AS jpeg FROM t LIMIT 7").await;
    query(&ctx, "CREATE TABLE large AS SELECT id, image_resize(image_decode(image, 28, 28, 1), 3000, 4000) AS image FROM t LIMIT 5").await;
    // 18 MB a photograph of three channels, as a file of unknown colours is taken, and 12 MB a grey tensor.
    for (tiles, most) in
        [("image_tiles(jpeg, 500) AS tiles FROM photos", 1), ("image_tiles(image, 400) AS tiles FROM large", 2)]
    {
        let frame = ctx.sql(&format!("SELECT id, {tiles}")).await.unwrap();
        let batches = frame.collect().await.unwrap();
        let rows: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
        assert!(rows.len() > 2 && rows.iter().all(|rows| *rows <= most), "{tiles}: {rows:?}");
    }
    let (images, rows, plan) = scored(&ctx, "SELECT unnest(image_tiles(image, 14)) AS tile FROM t").await;
    assert_eq!((images, rows.iter().map(RecordBatch::num_rows).sum::<usize>()), (0, 6000), "{plan}");
    assert!(plan.contains("WaePassExec: image_tiles("), "{plan}");
}
