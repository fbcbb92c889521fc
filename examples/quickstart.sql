-- The quickstart in SQL: learn what clothes look like, encode a test set, flag what is none.
--
--     cargo run --bin wae -- -f examples/quickstart.sql
--
-- Run it from the repository's root. Classes 0, 1, 2, 3, 4 and 6 of Fashion-MNIST are clothes; 5, 7, 8 and 9 are shoes and
-- bags, which the model never sees and which count as strange below.

SET wae.model_dir = 'target/quickstart/models';

CREATE VIEW train AS SELECT image, label FROM 'fixtures/fashion/train.parquet';
CREATE VIEW test AS SELECT image, label FROM 'fixtures/fashion/test.parquet';

-- Train on clothes. Rows with computed columns need ORDER BY epoch to stay in order; they still come as each epoch ends.
SELECT epoch, round(loss, 2) AS loss, round(reconstruction_cost, 2) AS cost,
       round(holdout_reconstruction_cost, 2) AS holdout_cost, round(holdout_divergence, 4) AS holdout_mmd2
FROM wae_train((SELECT image FROM train WHERE label IN (0, 1, 2, 3, 4, 6)),
               model => 'clothes', network => 'small', latent_dim => 8, epochs => 8, overwrite => true)
ORDER BY epoch;

SET wae.model = 'clothes';

-- Encode and score the test set, once.
CREATE TABLE scores AS
SELECT label, label NOT IN (0, 1, 2, 3, 4, 6) AS strange, wae_encode(image) AS code,
       wae_reconstruction_cost(image) AS cost, wae_anomaly_score(image) AS score, wae_p_value(image) AS p, wae_is_outlier(image, 0.05) AS outlier
FROM test;

-- A few codes.
SELECT label, code FROM scores LIMIT 3;

-- The ten strangest rows.
SELECT label, cost, score, p FROM scores ORDER BY score DESC LIMIT 10;

-- The outliers at alpha = 0.05: the share of clothes is the false-alarm rate, the share of shoes and bags the power.
SELECT strange, count(*) AS images, count(*) FILTER (WHERE outlier) AS flagged,
       round(avg(CASE WHEN outlier THEN 1.0 ELSE 0.0 END), 3) AS share
FROM scores GROUP BY strange ORDER BY strange;

-- The area under the ROC curve: the chance that a strange image scores higher than one of clothes.
SELECT round(auroc(score, strange), 3) AS of_the_score, round(auroc(cost, strange), 3) AS of_the_cost FROM scores;
