// How good the answers were, as the store of evidence says.

import { bearer } from "./feed.js";
import { calibrationPlot, intervalBar } from "./quality-charts.js";
import { clock, get, h, integer, percent, short, signed } from "./dom.js";

const EVERY = 20_000;
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const ARMS = { adaptive: "adaptive", holdout: "hold-out" };
const TABLES = { decisions: "decisions", feedback: "judgments", shadow_pairs: "shadow pairs", measurements: "measured answers", candidate_decisions: "decisions of candidates" };

let drawn = "";

export function watchQuality() {
  setInterval(refresh, EVERY);
  document.addEventListener("visibilitychange", refresh);
}

/** Ask again, if somebody looks. */
export async function refresh() {
  if (document.hidden) return;
  try {
    const response = await fetch("console/quality", { headers: bearer(sessionStorage.getItem("console-key")) });
    if (response.ok) draw(await response.text());
  } catch (error) {
    console.info(`the quality was not read: ${error.message}`);
  }
}

function draw(text) {
  if (text === drawn) return;
  drawn = text;
  const found = JSON.parse(text);
  const place = get("quality-body");
  place.dataset.state = found.state;
  get("quality-hint").textContent = found.state === "ready" ? `Last ${found.days} days, by feedback. Who gives feedback is not drawn at random.` : "";
  place.replaceChildren(...(found.state === "ready" ? body(found) : [notice(found)]));
}

const code = (text) => h("code", {}, text);
const panel = (title, ...children) => h("div", { class: "panel" }, title ? h("h3", {}, title) : null, children);

function notice({ state, detail }) {
  if (state === "off") return panel(null, h("p", {}, "Nothing is kept, so nothing is known about the answers. Configure ", code("evidence: {}"), " to keep decisions and feedback."));
  if (state === "opening") return panel(null, h("p", {}, "The store of evidence is being opened."));
  return panel(null, h("p", { class: "bad" }, "The store of evidence does not respond. Requests are served as ever; what is not written in time is lost."), detail ? h("p", { class: "small" }, detail) : null);
}

function body(found) {
  const models = found.models.length ? found.models.flatMap(model) : [panel(null, h("p", {}, `No request of the last ${found.days} days is in the store yet.`))];
  return [...promises(found.promises ?? []), ...models, ...drift(found), h("div", { class: "columns even" }, latest(found), store(found)), ...heads(found)];
}

function promises(told) {
  return told.length ? [panel("What is promised", ...told.map((line) => h("p", {}, line)))] : [];
}

function model(one) {
  const rated = one.arms.reduce((sum, arm) => sum + arm.rated, 0);
  return [
    h("h3", { class: "model-name" }, one.model),
    readouts(one, rated),
    rated ? h("div", { class: "columns even" }, rungs(one), panel("Expected and observed", calibrationPlot(one.calibration))) : noFeedback(),
    one.pairs.length ? pairs(one) : null,
  ].filter(Boolean);
}

function noFeedback() {
  return panel(null, h("p", {}, "Nobody has judged an answer yet. Send feedback with ", code("POST /v1/feedback"), ", or use the thumbs in the playground."));
}

const range = ({ low, high }, digits = 1) => `${signed(low * 100, digits)} to ${signed(high * 100, digits)} %`;
const plus = (share, digits = 1) => `${share > 0 ? "+" : ""}${signed(share * 100, digits)}`;

function readout(name, value, note) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, h("span", { class: "value" }, value)), h("dd", { class: "note" }, note));
}

function readouts(one, rated) {
  const { comparison } = one;
  const right = (name) => {
    const arm = one.arms.find((each) => each.arm === name);
    if (!arm?.right) return readout(`Right, ${ARMS[name]}`, "–", arm ? `${integer(arm.requests)} requests, none judged` : "no requests");
    return readout(`Right, ${ARMS[name]}`, percent(arm.right.mean, 1), `${range(arm.right)}, ${integer(arm.rated)} judged of ${integer(arm.requests)}`);
  };
  const held = one.arms.some((arm) => arm.arm === "holdout");
  return h("dl", { class: "readouts four" },
    right("adaptive"),
    held ? right("holdout") : readout("Right, hold-out", "–", h("span", {}, "configure ", code("holdout"), " to compare")),
    readout("Difference", comparison ? `${plus(comparison.right.mean)} points` : "–", comparison ? verdict(comparison) : "needs judged answers in both arms"),
    readout("Tokens saved", comparison?.saved ? percent(comparison.saved.mean) : "–", comparison?.saved ? `${range(comparison.saved, 0)} of the hold-out's` : rated ? "needs a hold-out" : "needs judged answers"));
}

/** What the interval of the difference says. */
function verdict({ right, missing }) {
  const words = right.low > 0 ? "better than the hold-out" : right.high < 0 ? "worse than the hold-out" : "not enough evidence to tell";
  const more = missing ? `; ± 2 points need ${integer(missing)} more judged answers held out` : "";
  return h("span", { class: right.high < 0 ? "bad" : null }, `${range(right)}: ${words}${more}`);
}

function table(name, heads, rows) {
  return h("table", { class: "estimates" },
    h("caption", { class: "visually-hidden" }, name),
    h("thead", {}, h("tr", {}, heads.map(([head, kind]) => h("th", { scope: "col", class: kind }, head)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, i) => h("td", { class: heads[i][1] }, cell))))));
}

function rungs(one) {
  const several = one.arms.length > 1;
  const rows = one.rungs.map((each) => [
    `${each.tier} · ${each.rung}`, ...(several ? [ARMS[each.arm] ?? each.arm] : []), integer(each.rated),
    each.right ? percent(each.right.mean, 1) : "–", each.right ? intervalBar(each.right, each.expected) : "", short(each.tokens),
  ]);
  return panel("Right answers by rung", table("Right answers by rung and arm",
    [["tier · rung"], ...(several ? [["arm"]] : []), ["judged", "num"], ["right", "num"], ["95 %, and what was expected", "wide"], ["tokens", "num"]], rows));
}

function pairs(one) {
  const rows = one.pairs.map((pair) => [
    `${pair.served_rung} against ${pair.shadow_rung}`, integer(pair.served), integer(pair.ties), integer(pair.shadow), integer(pair.ungraded), integer(pair.flips),
    `${short(pair.served_tokens)} / ${short(pair.shadow_tokens)}`,
  ]);
  return panel("Shadow pairs: the answer served against one at another rung", table("Shadow pairs",
    [["rungs"], ["served better", "num"], ["ties", "num"], ["other better", "num"], ["ungraded", "num wide"], ["flips", "num wide"], ["tokens", "num wide"]], rows));
}

const WATCHED = { right: "right answers", tokens: "tokens", pairs: "shadow pairs", abstained: "unseen prompts" };

/** What is watched for drift: alarms first, then by evidence. */
function drift({ drift: watched }) {
  if (!watched?.on_drift) return [];
  const order = [...watched.streams].sort((a, b) => (b.since !== null) - (a.since !== null) || b.evidence - b.limit - (a.evidence - a.limit));
  const rows = order.slice(0, 20).map((each) => [
    `${each.place.model}${each.place.tier ? ` · ${each.place.tier}` : ""}`, WATCHED[each.place.kind], integer(each.seen),
    `${signed(each.evidence, 1)} of ${signed(each.limit, 1)}`,
    each.since === null ? "holds" : h("span", { class: "bad" }, `since ${new Date(each.since * 1000).toLocaleDateString("en-GB")} ${clock(each.since)}`),
    each.place.head,
  ]);
  return [panel(`What the head says, and whether it holds (on drift: ${watched.on_drift})`, rows.length
    ? table("Drift", [["model · tier"], ["watched"], ["seen", "num wide"], ["evidence", "num"], ["alarm"], ["head", "wide"]], rows)
    : h("p", { class: "empty" }, "Nothing was judged yet."))];
}

function latest({ feedback }) {
  const rows = feedback.map((each) => [
    new Date(each.at * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short" }) + " " + clock(each.at),
    each.model ? `${each.model} · ${each.tier}` : "deleted", each.source, h("span", { class: each.score < 0.5 ? "bad" : null }, each.score === 1 ? "right" : each.score === 0 ? "wrong" : each.score.toFixed(2)),
  ]);
  return panel("Newest feedback", rows.length ? table("Newest feedback", [["time"], ["answer"], ["source", "wide"], ["score", "num"]], rows) : h("p", { class: "empty" }, "There is none yet."));
}

/** The heads in the store, and who let which of them decide. Nothing where there are none. */
function heads({ heads: { heads: kept, promotions, promoted } }) {
  if (!kept.length && !promotions.length) return [];
  const gate = ({ verdict }) => !verdict ? "not compared" : verdict.passes ? "passes" : h("span", { class: "bad", title: (verdict.reasons ?? []).join("; ") }, "refused");
  const day = (at) => new Date(at * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  const rows = kept.map((head) => [head.version, day(head.made_at), head.version === promoted ? "decides" : head.state, gate(head)]);
  const lines = promotions.map((line) => [`${day(line.at)} ${clock(line.at)}`, line.action === "promote" ? "promoted" : "rolled back to", line.head ?? "the head of the configuration", line.why || "–"]);
  return [h("div", { class: "columns even" },
    panel("Heads in the store", table("Heads in the store", [["version"], ["added", "wide"], ["state"], ["gate"]], rows)),
    panel("Promotions", lines.length ? table("Promotions", [["time", "wide"], ["what"], ["head"], ["why", "wide"]], lines) : h("p", { class: "empty" }, "The head of the configuration decides.")))];
}

function bytes(value) {
  const power = Math.min(Math.floor(Math.log(Math.max(value, 1)) / Math.log(1024)), UNITS.length - 1);
  return `${(value / 1024 ** power).toFixed(power ? 1 : 0)} ${UNITS[power]}`;
}

function store({ store: kept }) {
  const first = Math.min(...kept.tables.map((each) => each.first ?? Infinity));
  const facts = [
    ["size", `${bytes(kept.bytes)} of ${bytes(kept.limit)}`],
    ["kept for", `${integer(kept.days)} days`],
    ["text of prompts", kept.prompts ? "kept" : "not kept"],
    ["oldest row", Number.isFinite(first) ? new Date(first * 1000).toLocaleDateString("en-GB") : "–"],
    ...kept.tables.map((each) => [TABLES[each.table] ?? each.table, integer(each.rows)]),
  ];
  return panel("Store", h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
}
