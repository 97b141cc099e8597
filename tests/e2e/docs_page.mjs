// Opens the documentation page in Chromium as a person would, tries a call out and reports the status it shows.
// Usage: node docs_page.mjs URL [SCREENSHOT.png]
import { fileURLToPath } from "node:url";
import path from "node:path";
import { createRequire } from "node:module";

const here = path.dirname(fileURLToPath(import.meta.url));
const parts = process.env.MCP_PARTS_DIR ?? path.join(here, "../../.parts");
const { chromium } = createRequire(path.join(parts, "npm/package.json"))("playwright-core");

const [url, screenshot] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
let failed = false;
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(30_000);
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("requestfailed", (request) => faults.push(`${request.url()} ${request.failure()?.errorText}`));
  await page.goto(url);
  const operation = page.locator(".opblock-post", { hasText: "/api/mcp/{server}" }).first();
  await operation.locator(".opblock-summary-control").click();
  await operation.locator("select").first().selectOption({ index: 1 }).catch(() => {});
  await operation.getByRole("button", { name: "Execute" }).click();
  const status = await operation.locator(".live-responses-table .response .response-col_status").first().innerText();
  if (screenshot) await page.screenshot({ path: screenshot, fullPage: true });
  if (faults.length) throw new Error(faults.join("\n"));
  console.log(`answered ${status.trim()}`);
} catch (error) {
  failed = true;
  console.error(error);
  console.error("the page could not be used");
} finally {
  await browser.close();
}
process.exit(failed ? 1 : 0);
