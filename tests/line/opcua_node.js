// A client of another OPC UA stack: node opcua_node.js URL PARTS
// Browses the vision system of the station `press`, prints "listening", waits for the results of PARTS parts, calls methods,
// and prints what it saw as one line of JSON.
const opcua = require("node-opcua-client");
const { AttributeIds, DataType } = opcua;

async function main([url, parts]) {
  const client = opcua.OPCUAClient.create({
    endpointMustExist: false, connectionStrategy: { maxRetry: 2 }, transportTimeout: 60000, requestedSessionTimeout: 120000,
  });
  await client.connect(url);
  const session = await client.createSession();
  await session.extractNamespaceDataType();
  const namespaces = await session.readNamespaceArray();
  const own = namespaces.indexOf("urn:andon:line");
  const vision = namespaces.indexOf("http://opcfoundation.org/UA/MachineVision");
  const find = async (from, path) => {
    const found = await session.translateBrowsePath(opcua.makeBrowsePath(from, path));
    if (found.statusCode.isNotGood()) throw new Error(`${path}: ${found.statusCode.name}`);
    return found.targets[0].targetId;
  };
  const read = async (nodeId) => {
    const found = await session.read({ nodeId, attributeId: AttributeIds.Value });
    return found.statusCode.isGood() ? found.value.value : found.statusCode.name;
  };
  const system = await find("ObjectsFolder", `/${own}:Andon/${own}:press/${own}:VisionSystem`);
  const machine = await find(system, `/${vision}:VisionStateMachine`);
  const results = await find(system, `/${vision}:ResultManagement`);
  const state = await find(machine, "/CurrentState");
  const mode = await find(machine, `/${vision}:AutomaticModeStateMachine/CurrentState`);
  const e10 = await find(system, `/${vision}:SystemState`);
  const call = async (objectId, name, inputArguments) => {
    const methodId = await find(objectId, `/${vision}:${name}`);
    return session.call({ objectId, methodId, inputArguments });
  };
  const cause = [{ dataType: DataType.Int32, value: 1 }, { dataType: DataType.String, value: "test" }];
  const status = async (name) => (await call(machine, name, cause)).statusCode.name;
  const seen = {
    type: (await session.browse({ nodeId: system, referenceTypeId: "HasTypeDefinition" })).references[0].browseName.name,
    children: (await session.browse(system)).references.map((each) => each.browseName.name).sort(),
    states: [(await read(state)).text, (await read(mode)).text],
    e10: (await read(e10)).state,
    events: [],
  };

  const subscription = await session.createSubscription2({
    requestedPublishingInterval: 20, requestedLifetimeCount: 1000, requestedMaxKeepAliveCount: 50, publishingEnabled: true,
  });
  const fields = ["ResultId", "ResultState", "PartId", "JobId", "InternalRecipeId", "ResultContent"];
  const filter = opcua.constructEventFilter(
    fields.map((name) => `${vision}:${name}`), opcua.ofType(`ns=${vision};i=1024`));
  const item = await subscription.monitor(
    { nodeId: system, attributeId: AttributeIds.EventNotifier }, { queueSize: 1000, discardOldest: true, filter },
    opcua.TimestampsToReturn.Both);
  const all = new Promise((resolve) => item.on("changed", (values) => {
    const [result, resultState, part, job, recipe, content] = values.map((each) => each.value);
    seen.events.push({ result: result.id, state: resultState, part: part.id, job: job.id,
      hash: recipe.hash.toString("hex"), verdict: JSON.parse(content[0]).verdict });
    if (seen.events.length === Number(parts)) resolve();
  }));
  console.log("listening");
  await all;

  const ResultId = await session.constructExtensionObject(opcua.resolveNodeId(`ns=${vision};i=3021`), { id: seen.events[0].result });
  const found = await call(results, "GetResultById", [
    { dataType: DataType.ExtensionObject, value: ResultId }, { dataType: DataType.Int32, value: 0 }]);
  seen.found = { id: found.outputArguments[1].value.resultId.id, error: found.outputArguments[2].value };
  seen.calls = [];
  for (const name of ["Halt", "Halt", "Reset"]) seen.calls.push([await status(name), (await read(state)).text]);
  await subscription.terminate();
  await session.close();
  await client.disconnect();
  console.log(JSON.stringify(seen));
}

main(process.argv.slice(2)).catch((error) => { console.error(error.stack || String(error)); process.exit(1); });
