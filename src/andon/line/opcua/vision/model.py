"""The model of machine vision in the address space, and results and recipes in its data types.

The file is the one that the OPC Foundation publishes: `assets/opcua/LICENSE.md` has its origin and licence.
"""

from __future__ import annotations

import gzip
from importlib import resources
from typing import Any, NamedTuple

from asyncua import Node, Server, ua
from asyncua.common.structures104 import load_custom_struct

from andon.line.opcua.emitting import moment
from andon.line.opcua.vision.values import Recipe, Result

NAMESPACE = "http://opcfoundation.org/UA/MachineVision"
FILE = "assets/opcua/Opc.Ua.MachineVision.NodeSet2.xml.gz"
ID_BASE = 3019
"""BinaryIdBaseDataType, the base of the three types below, which add no field."""
IDS = {3002: 5002, 3008: 5090, 3013: 5268}
"""RecipeIdExternalDataType, ConfigurationIdDataType, RecipeIdInternalDataType, each with its binary encoding."""
STATE_MACHINE, AUTOMATIC_MODE = 1017, 1021


class Model(NamedTuple):
    """Where the model is."""

    namespace: int
    own: int
    """Namespace of the stations."""
    states: dict[str, ua.NodeId]
    """States and transitions of both state machines, by name."""

    def id(self, number: int) -> ua.NodeId:
        """Id of a node of the model."""
        return ua.NodeId(number, self.namespace)


async def load(server: Server, own: int) -> Model:
    """Import the model, which nobody can write to. `own`: namespace of the stations."""
    text = gzip.decompress(resources.files("andon").joinpath(FILE).read_bytes()).decode()
    made = await server.import_xml(xmlstring=text)
    model = Model(await server.get_namespace_index(NAMESPACE), own, {})
    for number, encoding in IDS.items():
        await _inherit(server, model, number, encoding)
    for each in made:
        node = server.get_node(each)
        if await node.read_node_class() == ua.NodeClass.Variable:
            await node.set_read_only()
    for number in (STATE_MACHINE, AUTOMATIC_MODE):
        for child in await server.get_node(model.id(number)).get_children_descriptions():
            model.states[child.BrowseName.Name] = child.NodeId
    return model


async def _inherit(server: Server, model: Model, number: int, encoding: int) -> None:
    """A data type with all fields of its base; asyncua 2.1 takes one without fields of its own as its base."""
    base = await server.get_node(model.id(ID_BASE)).read_data_type_definition()
    definition = ua.StructureDefinition(
        DefaultEncodingId=model.id(encoding),
        BaseDataType=model.id(ID_BASE),
        StructureType=base.StructureType,
        Fields=list(base.Fields),
    )
    node = server.get_node(model.id(number))
    value = ua.DataValue(ua.Variant(definition, ua.VariantType.ExtensionObject))
    await server.write_attribute_value(node.nodeid, value, ua.AttributeIds.DataTypeDefinition)
    await load_custom_struct(node)


def variant(value: Any) -> ua.Variant:
    """A structure, or null for None."""
    return ua.Variant() if value is None else ua.Variant(value, ua.VariantType.ExtensionObject)


def structure(result: Result) -> Any:
    """A result as ResultDataType."""
    return ua.ResultDataType(
        ResultId=ua.ResultIdDataType(Id=result.id),
        HasTransferableDataOnFile=False,
        IsPartial=False,
        IsSimulated=False,
        ResultState=ua.Int32(result.state),
        MeasId=ua.MeasIdDataType(Id=result.job.measurement) if result.job.measurement else None,
        PartId=ua.PartIdDataType(Id=result.part) if result.part else None,
        ExternalRecipeId=external(result.recipe),
        InternalRecipeId=internal(result.recipe),
        InternalConfigurationId=ua.ConfigurationIdDataType(Id=result.configuration),
        JobId=ua.JobIdDataType(Id=result.job.id),
        CreationTime=moment(result.end),
        ProcessingTimes=ua.ProcessingTimesDataType(
            StartTime=moment(result.begin), EndTime=moment(result.end)
        ),
        ResultContent=[ua.Variant(result.content, ua.VariantType.String)],
    )


def components(made: Any) -> dict[str, ua.Variant]:
    """The fields of a ResultDataType, each as a value of its own."""
    return {
        "ResultId": variant(made.ResultId),
        "HasTransferableDataOnFile": ua.Variant(False),
        "IsPartial": ua.Variant(False),
        "IsSimulated": ua.Variant(False),
        "ResultState": ua.Variant(made.ResultState, ua.VariantType.Int32),
        "MeasId": variant(made.MeasId),
        "PartId": variant(made.PartId),
        "ExternalRecipeId": variant(made.ExternalRecipeId),
        "InternalRecipeId": variant(made.InternalRecipeId),
        "ProductId": ua.Variant(),
        "ExternalConfigurationId": ua.Variant(),
        "InternalConfigurationId": variant(made.InternalConfigurationId),
        "JobId": variant(made.JobId),
        "CreationTime": ua.Variant(made.CreationTime, ua.VariantType.DateTime),
        "ProcessingTimes": variant(made.ProcessingTimes),
        "ResultContent": ua.Variant([each.Value for each in made.ResultContent], ua.VariantType.String),
    }


def external(recipe: Recipe) -> Any:
    """Id that the environment gave; None without one."""
    return ua.RecipeIdExternalDataType(Id=recipe.code) if recipe.code else None


def internal(recipe: Recipe) -> Any:
    """Id in this system, with the hash of the packed model where it is known."""
    if not recipe.model:
        return ua.RecipeIdInternalDataType(Id=recipe.id)
    return ua.RecipeIdInternalDataType(
        Id=recipe.id, Hash=bytes.fromhex(recipe.model), HashAlgorithm="SHA-256"
    )


async def children(node: Node) -> dict[str, Node]:
    """Children of a node by the name in their browse name."""
    found = await node.get_children_descriptions()
    return {each.BrowseName.Name: Node(node.session, each.NodeId) for each in found}
