// Opens the API's page in a real browser and holds it to what a reader needs: it asks nothing of any
// other place, shows every operation, leads where its links say, fits narrow and wide windows, and
// can be read in light and dark.
//
//   node page.mjs http://127.0.0.1:8400 [/usr/bin/chromium]
//
// Wants the packages of package-lock.json; `ops/check page` installs them. Exits with 1 when something
// is not so, and says everything that is not.

import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";

const [server, executablePath = "/usr/bin/chromium"] = process.argv.slice(2);
if (!server) {
  console.error("page.mjs: expected the server's address, e.g. http://127.0.0.1:8400");
  process.exit(2);
}
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const wrong = [];
const expect = (so, what) => {
  if (!so) wrong.push(what);
};

// A container's root has no sandbox; and nothing but the page is to be asked for.
const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"];
const browser = await chromium.launch({ executablePath, args });
for (const colorScheme of ["light", "dark"]) {
  for (const width of [360, 1280]) {
    // The checks are evaluated inside the page, which its own policy forbids to scripts.
    const context = await browser.newContext({ colorScheme, viewport: { width, height: 800 } });
    const page = await context.newPage();
    await look(page, `${colorScheme}, ${width} px`, width === 1280 && colorScheme === "light");
    await context.close();
  }
}
await browser.close();

for (const one of wrong) console.error(`  ${one}`);
console.log(wrong.length === 0 ? "the page is as it should be" : `${wrong.length} things are wrong`);
process.exitCode = wrong.length === 0 ? 0 : 1;

async function look(page, as, first) {
  const asked = new Set();
  page.on("request", (request) => asked.add(request.url()));
  page.on("console", (message) => expect(false, `${as}: the console says ${message.text()}`));
  page.on("pageerror", (error) => expect(false, `${as}: ${error}`));
  const answer = await page.goto(`${server}/docs`);
  expect(answer.status() === 200, `${as}: /docs is answered ${answer.status()}`);
  expect(answer.headers()["content-security-policy"], `${as}: /docs has no policy`);
  if (first) {
    await operations(page);
    await links(page);
  }
  await page.evaluate(() => {
    for (const one of document.querySelectorAll("details")) one.open = true;
  });
  const { inside, window } = await page.evaluate(() => ({
    inside: document.documentElement.scrollWidth,
    window: document.documentElement.clientWidth,
  }));
  expect(inside <= window, `${as}: it is ${inside} px wide, the window ${window}`);
  await page.evaluate(axe);
  // What the WCAG asks for at its levels A and AA.
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }),
  );
  for (const { id, help, nodes } of violations) {
    expect(false, `${as}: ${id}: ${help}: ${nodes.length} times, first ${nodes[0].html.slice(0, 160)}`);
  }
  const others = [...asked].filter((url) => url.split("#")[0] !== `${server}/docs`);
  expect(others.length === 0, `${as}: it asks for ${others}`);
}

// Every operation of the description stands there, closed, and opens by a click.
async function operations(page) {
  const description = await (await fetch(`${server}/v1/openapi.json`)).json();
  const wanted = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { operationId }]) => ({ path, method, operationId })),
  );
  expect(wanted.length > 50, `the description has ${wanted.length} operations`);
  for (const { path, method, operationId } of wanted) {
    const body = page.locator(`details.operation > #${operationId}`);
    const one = page.locator(`details.operation:has(> #${operationId})`);
    const summary = one.locator(":scope > summary");
    if ((await one.count()) !== 1) {
      expect(false, `${operationId} stands there ${await one.count()} times`);
      continue;
    }
    const said = await summary.innerText();
    const named = said.toLowerCase().includes(method) && said.replaceAll("\u200b", "").includes(path);
    expect(named, `${operationId} is shown as ${said}`);
    expect(!(await body.isVisible()), `${operationId} is open`);
    await summary.click();
    expect(await body.isVisible(), `${operationId} does not open`);
    await summary.click();
  }
  console.log(`${wanted.length} operations`);
}

// Every link of the page leads to something that is seen then, be it folded in before.
async function links(page) {
  const hashes = await page.evaluate(() => [
    ...new Set([...document.querySelectorAll('a[href^="#"]')].map((link) => link.hash)),
  ]);
  expect(hashes.length > 10, `the page has ${hashes.length} links`);
  for (const hash of hashes) {
    await page.goto(`${server}/docs${hash}`);
    const seen = await page.evaluate((id) => {
      const target = document.getElementById(id);
      const top = target?.getBoundingClientRect().top ?? -1;
      return target?.checkVisibility() && top >= 0 && top < innerHeight;
    }, decodeURIComponent(hash.slice(1)));
    expect(seen, `${hash} leads nowhere`);
  }
  console.log(`${hashes.length} links`);
}
