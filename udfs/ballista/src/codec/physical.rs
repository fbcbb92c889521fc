//! Physical plans, from the scheduler to the executors.

use std::sync::Arc;

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::common::{Result, exec_datafusion_err, exec_err, plan_err};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExpr;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::PhysicalExprNode;
use datafusion_wae::{WaePassExec, distributed};
use prost::Message;

/// The beginning of the bytes of a node of the plugin. No protobuf message begins so: 'W' is a field of a wire type
/// that there is not.
const MAGIC: &[u8] = b"WAE1";

/// Ballista's codec of physical plans, with the plan node of passes, and by which calls carry the version of their
/// model.
#[derive(Debug, Default)]
pub struct WaePhysicalCodec {
    ballista: BallistaPhysicalExtensionCodec,
}

/// A [`WaePassExec`] as it travels, without its input.
#[derive(Clone, PartialEq, Message)]
struct WaePassNode {
    #[prost(message, repeated, tag = "1")]
    passes: Vec<PhysicalExprNode>,
    #[prost(string, repeated, tag = "2")]
    names: Vec<String>,
}

impl WaePhysicalCodec {
    fn encode_pass(&self, node: &WaePassExec, converter: &dyn PhysicalProtoConverterExtension) -> Result<WaePassNode> {
        let passes = node.passes().iter().map(|pass| converter.physical_expr_to_proto(&pass.expr, self));
        let names = node.passes().iter().map(|pass| pass.alias.clone()).collect();
        Ok(WaePassNode { passes: passes.collect::<Result<_>>()?, names })
    }

    fn decode_pass(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        ctx: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<WaePassExec> {
        let WaePassNode { passes, names } =
            WaePassNode::decode(buf).map_err(|e| exec_datafusion_err!("WaePassExec cannot be decoded: {e}"))?;
        let ([input], true) = (inputs, passes.len() == names.len()) else {
            return exec_err!(
                "WaePassExec: one input and a name a pass expected, got {} inputs, {} passes and {} names",
                inputs.len(),
                passes.len(),
                names.len()
            );
        };
        let (schema, ctx) = (input.schema(), PhysicalPlanDecodeContext::new(ctx, self));
        let passes = passes
            .iter()
            .zip(names)
            .map(|(pass, name)| Ok(ProjectionExpr::new(converter.proto_to_physical_expr(pass, &schema, &ctx)?, name)));
        WaePassExec::try_new(Arc::clone(input), passes.collect::<Result<_>>()?)
    }
}

impl PhysicalExtensionCodec for WaePhysicalCodec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        ctx: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match buf.strip_prefix(MAGIC) {
            Some(buf) => Ok(Arc::new(self.decode_pass(buf, inputs, ctx, converter)?)),
            None => self.ballista.try_decode(buf, inputs, ctx, converter),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(pass) = node.downcast_ref::<WaePassExec>() else {
            return self.ballista.try_encode(node, buf, converter);
        };
        buf.extend_from_slice(MAGIC);
        buf.extend(self.encode_pass(pass, converter)?.encode_to_vec());
        Ok(())
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        match distributed::decode_function(name, buf)? {
            Some(function) => Ok(Arc::new(function)),
            None => self.ballista.try_decode_udf(name, buf),
        }
    }

    fn try_encode_udf(&self, function: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        let payload = distributed::encode_function(function);
        if payload.is_empty() && distributed::is_over_model(function.name()) {
            return plan_err!("{}: the call has no version of its model, expected one from planning", function.name());
        }
        buf.extend(payload);
        Ok(())
    }

    fn try_decode_udaf(&self, name: &str, buf: &[u8]) -> Result<Arc<AggregateUDF>> {
        match distributed::decode_aggregate(name, buf)? {
            Some(function) => Ok(Arc::new(function)),
            None => self.ballista.try_decode_udaf(name, buf),
        }
    }

    fn try_encode_udaf(&self, function: &AggregateUDF, buf: &mut Vec<u8>) -> Result<()> {
        let payload = distributed::encode_aggregate(function);
        if payload.is_empty() && distributed::is_over_model(function.name()) {
            return plan_err!("{}: the call has no version of its model, expected one from planning", function.name());
        }
        buf.extend(payload);
        Ok(())
    }
}
