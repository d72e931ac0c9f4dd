// Looks at a page with a headless browser: a picture, and with "live" what is wrong with it.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [, , url, out, width, scheme, kind] = process.argv;
const puppeteer = createRequire(process.env.MODULES + "/")("puppeteer-core");
const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"], headless: true });
try {
  const page = await browser.newPage();
  const faults = [];
  page.on("console", message => faults.push(message.type() + ": " + message.text()));
  page.on("pageerror", error => faults.push("error: " + error.message));
  page.on("requestfailed", request => faults.push("failed: " + request.url()));
  await page.setViewport({ width: +width, height: 460 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(url);
  if (kind === "live") {
    await page.waitForFunction(() => document.getElementById("link").textContent === "live", { timeout: 20000 });
    await new Promise(done => setTimeout(done, 15000));
    await page.evaluate(readFileSync(process.env.AXE, "utf8"));
    const { violations, passes } = await page.evaluate(() => axe.run());
    for (const violation of violations) {
      faults.push("axe: " + violation.help + ": " + violation.nodes.map(node => node.html).join(" "));
    }
    console.log(`${width} wide, ${scheme}: ${passes.length} rules of axe-core hold`);
  }
  await page.screenshot({ path: out, fullPage: true });
  if (faults.length) {
    console.error(faults.join("\n"));
    process.exitCode = 1;
  }
} finally {
  await browser.close();
}
