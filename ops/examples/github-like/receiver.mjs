// A receiver of GitHub's webhooks: the middleware of `@octokit/webhooks` verifies and answers. Writes
// what it saw to standard output, a JSON object a line.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { createNodeMiddleware, Webhooks } from "@octokit/webhooks";

const { values } = parseArgs({
  options: {
    secrets: { type: "string" }, // a file, a secret a line; read each time
    port: { type: "string", default: "9000" }, // 0: any free one
    fail: { type: "string", multiple: true, default: [] }, // fail at the first attempt of this webhook-id
  },
});
const fail = new Set(values.fail);
const line = (seen) => process.stdout.write(JSON.stringify(seen) + "\n");
const silent = { debug() {}, info() {}, warn() {}, error() {} };

createServer(async (request, response) => {
  const headers = { ...request.headers };
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  request.body = Buffer.concat(chunks).toString();

  const [secret, ...additionalSecrets] = readFileSync(values.secrets, "utf8").trim().split("\n");
  const webhooks = new Webhooks({ secret, additionalSecrets, log: silent });
  const seen = { verified: false };
  webhooks.onAny(({ id, name }) => {
    Object.assign(seen, { verified: true, id, name });
    if (fail.delete(headers["webhook-id"])) throw new Error("not this time");
  });

  // While the sender's secret is changed, a receiver that has the older one finds its signature here.
  const previous = headers["x-hub-signature-256-previous"];
  const verifies = (signature) => webhooks.verify(request.body, signature).catch(() => false);
  if (previous && !(await verifies(headers["x-hub-signature-256"]))) {
    request.headers["x-hub-signature-256"] = previous;
    seen.by = "previous";
  }
  await createNodeMiddleware(webhooks, { path: "/hooks", log: silent })(request, response);
  line({ ...seen, status: response.statusCode, headers, body: request.body });
}).listen(Number(values.port), "127.0.0.1", function () {
  line({ listening: this.address().port });
});
