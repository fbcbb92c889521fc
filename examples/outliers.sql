-- Outliers in SQL that one can trust: scores that are computed once, rates by group, lists whose share of false alarms is
-- bounded, and a model that is calibrated for another camera without training.
--
--     cargo run --bin wae -- -f examples/outliers.sql
--
-- Run it from the repository's root. The story: a shop photographs the clothes that it sells, and shoes and bags get among
-- them by mistake. Classes 0, 1, 2, 3, 4 and 6 of Fashion-MNIST are clothes; 5, 7, 8 and 9 are shoes and bags. The labels
-- are used to see how well it went; no step needs them but where it says so.

SET wae.model_dir = 'target/outliers/models';

-- 1. Train on clothes, all of them known to be normal. A tenth of the rows is held out: p-values are ranks among these.
SELECT epoch, round(loss, 2) AS loss, round(holdout_reconstruction_cost, 2) AS holdout_cost
FROM wae_train((SELECT image FROM 'fixtures/fashion/train.parquet' WHERE label IN (0, 1, 2, 3, 4, 6)),
               model => 'clothes', network => 'small', latent_dim => 8, epochs => 8, overwrite => true)
ORDER BY epoch;

SET wae.model = 'clothes';

-- 2. A table with a column of embeddings. The network is the costly part, so that its codes are worth keeping: here for the
-- first 1,000 images that arrived.
CREATE TABLE arrivals AS
SELECT row_number() OVER () AS id, label, label NOT IN (0, 1, 2, 3, 4, 6) AS strange, image
FROM 'fixtures/fashion/test.parquet';

CREATE TABLE items AS SELECT *, wae_encode(image) AS z FROM arrivals WHERE id <= 1000;

-- More arrive, without a code yet. The backfill encodes these rows and no others: run it as often as you like.
INSERT INTO items SELECT *, NULL FROM arrivals WHERE id > 1000;

SELECT count(*) AS items, count(z) AS encoded FROM items;

UPDATE items SET z = wae_encode(image) WHERE z IS NULL;

SELECT count(*) AS items, count(z) AS encoded, arrow_typeof(max(z)) AS type FROM items;

-- 3. Items that look alike are near each other in the space of codes.
SELECT other.id, other.label, round(array_distance(item.z, other.z), 2) AS distance
FROM items AS item JOIN items AS other ON other.id <> item.id
WHERE item.id = 1
ORDER BY distance LIMIT 5;

-- 4. A view with scores. Whatever columns a query takes from it, each image passes through the network once; each query
-- computes anew, with the model as it is then.
CREATE VIEW scores AS
SELECT id, label, strange, wae_reconstruction_cost(image) AS cost, wae_anomaly_score(image) AS score,
       wae_p_value(image) AS p
FROM items;

-- The strangest items.
SELECT id, label, round(cost, 1) AS cost, round(score, 3) AS score, round(p, 4) AS p FROM scores ORDER BY score DESC LIMIT 5;

-- What every score says of the strangest: the reconstruction cost, the distance of the code from the training codes, the
-- anomaly score, which is 0.5 at alpha = 0.01, and whether the p-value is at most 0.01.
SELECT id, label, round(d['cost'], 1) AS cost, round(d['latent_distance'], 2) AS latent_distance,
       round(d['anomaly_score'], 3) AS anomaly_score, round(d['p_value'], 4) AS p, d['is_outlier'] AS outlier
FROM (SELECT id, label, wae_detect(image) AS d FROM items)
ORDER BY d['anomaly_score'] DESC LIMIT 5;

-- 5. Rates by group. Of normal rows about 5 % are flagged at alpha = 0.05, on average over draws of the held-out rows. That is
-- the average over all clothes: a kind of clothes that is stranger to the model has more, a common one fewer.
SELECT label, strange, count(*) AS items, round(avg(cost), 1) AS cost,
       round(avg(CASE WHEN p <= 0.05 THEN 1.0 ELSE 0.0 END), 3) AS flagged
FROM scores GROUP BY label, strange ORDER BY flagged DESC;

-- 6. A list to look through. Flagged at p <= 0.05, a table has 5 % of its normal rows in the list, whatever else is in
-- it: where strange rows are rare, as here after dropping most of them, the list is mostly false alarms. wae_fdr adjusts each
-- p-value for the number of rows: of those with q <= 0.1, a tenth at most is expected to be normal, on average over draws of the
-- held-out rows; one list may have some more.
WITH rare AS (
    SELECT * FROM scores WHERE NOT strange OR id % 12 = 0
), adjusted AS (
    SELECT strange, p, wae_fdr(p) OVER () AS q FROM rare
)
SELECT 'p <= 0.05' AS rule, count(*) AS listed, count(*) FILTER (WHERE NOT strange) AS false_alarms,
       round(avg(CASE WHEN strange THEN 0.0 ELSE 1.0 END), 2) AS share
FROM adjusted WHERE p <= 0.05
UNION ALL
SELECT 'q <= 0.1', count(*), count(*) FILTER (WHERE NOT strange), round(avg(CASE WHEN strange THEN 0.0 ELSE 1.0 END), 2)
FROM adjusted WHERE q <= 0.1
ORDER BY rule;

-- 7. Another camera, of a quarter of the resolution. Blurred images are easier to reconstruct: their costs are lower than
-- those of the held-out rows, which were sharp, and p-values say nothing about them any more. Here they are all too high:
-- fewer shoes and bags are found.
CREATE TABLE second_camera AS
SELECT id, label, strange, image_decode(image_encode(image_decode(image, 14, 14, 1)), 28, 28, 1) AS image FROM arrivals;

SELECT strange, count(*) AS items, round(avg(CASE WHEN wae_is_outlier(image, 0.05) THEN 1.0 ELSE 0.0 END), 3) AS flagged
FROM second_camera WHERE id % 2 = 1 GROUP BY strange ORDER BY strange;

-- Normal images of that camera put it right, without training: somebody has looked through them, and the model was not trained
-- on them. They must be other rows than those that are scored afterwards.
SELECT model, rows, skipped, round(smallest_p, 5) AS smallest_p
FROM wae_calibrate((SELECT image FROM second_camera WHERE NOT strange AND id % 2 = 0), model => 'clothes');

SELECT strange, count(*) AS items, round(avg(CASE WHEN wae_is_outlier(image, 0.05) THEN 1.0 ELSE 0.0 END), 3) AS flagged
FROM second_camera WHERE id % 2 = 1 GROUP BY strange ORDER BY strange;

-- From here on, p-values of this model are for the second camera. Costs and codes are what they were. For both cameras at
-- once, keep two copies of the model's file under two names, each calibrated for one.
SELECT name, rows AS trained_on, calibrated FROM wae_models();
