//! The scalar functions, a file each, and their common part: [`kernel`] is the trait that each implements, [`function`]
//! calls it for DataFusion, [`args`] checks and reads arguments, and [`pass`] holds the outputs of the network.

pub(crate) mod alpha;
pub(crate) mod args;
mod batch_rows;
mod call_model;
mod features_call;
pub(crate) mod function;
pub(crate) mod image_argument;
mod image_crop;
mod image_decode;
mod image_encode;
mod image_features;
pub(crate) mod image_features_pass;
pub(crate) mod image_reader;
mod image_resize;
mod image_sharpness;
pub(crate) mod image_tiles;
pub(crate) mod kernel;
pub(crate) mod pass;
mod planned_call;
pub(crate) mod planned_image;
pub(crate) mod row_args;
pub(crate) mod scores;
mod tensor_args;
mod travelling;
mod wae_anomaly_map;
mod wae_anomaly_mask;
mod wae_anomaly_regions;
mod wae_anomaly_score;
mod wae_cost_map;
mod wae_decode;
mod wae_detect;
mod wae_encode;
mod wae_interpolate;
mod wae_is_outlier;
mod wae_latent_distance;
mod wae_p_value;
pub(crate) mod wae_pass;
mod wae_reconstruct;
mod wae_reconstruction_cost;

use datafusion::logical_expr::ScalarUDF;

use crate::options::WaeOptions;

/// The scalar functions, in the order of the SQL reference, under a session's options.
pub(crate) fn all(options: &WaeOptions) -> Vec<ScalarUDF> {
    vec![
        wae_encode::wae_encode_udf(options),
        wae_decode::wae_decode_udf(options),
        wae_reconstruct::wae_reconstruct_udf(options),
        wae_reconstruction_cost::wae_reconstruction_cost_udf(options),
        wae_latent_distance::wae_latent_distance_udf(options),
        wae_anomaly_score::wae_anomaly_score_udf(options),
        wae_p_value::wae_p_value_udf(options),
        wae_is_outlier::wae_is_outlier_udf(options),
        wae_detect::wae_detect_udf(options),
        wae_anomaly_map::wae_anomaly_map_udf(options),
        wae_anomaly_mask::wae_anomaly_mask_udf(options),
        wae_anomaly_regions::wae_anomaly_regions_udf(options),
        wae_cost_map::wae_cost_map_udf(options),
        wae_interpolate::wae_interpolate_udf(options),
        image_decode::image_decode_udf(options),
        image_encode::image_encode_udf(options),
        image_resize::image_resize_udf(options),
        image_crop::image_crop_udf(options),
        image_tiles::image_tiles_udf(options),
        image_sharpness::image_sharpness_udf(options),
        image_features::image_features_udf(options),
    ]
}
