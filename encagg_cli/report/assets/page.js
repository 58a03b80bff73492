"use strict";
// What the page does: one state (method, round, client, search), from which every picture and table is drawn anew.
// Text from files reaches the page through textContent and chart data alone, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const state = { method: 0, round: 0, client: null, search: "", second: false, close: false, order: "id" };
const views = {};

function rowsOf(method) {
  if (method.rows) return method.rows;
  method.rows = method.round.map((round, i) => {
    const poisoned = method.poisoned[i], accepted = method.accepted[i] === 1, trusted = method.trusted[i] === 1;
    const outcome = poisoned === 1 ? (accepted ? "missed" : "caught")
      : accepted ? "kept" : poisoned === 0 ? "lost" : "rejected";
    const attack = method.attack[i] === null ? "" : ` (${method.attacks[method.attack[i]]})`;
    const score = { "∞": Infinity, "-∞": -Infinity }[method.score[i]] ?? method.score[i];
    return {
      place: round, round: data.rounds[round], client: data.clients[method.client[i]], accepted, outcome, trusted,
      verdict: accepted ? "accepted" : "rejected", reason: method.reasons[method.reason[i]], score, scoreText: String(method.score[i]),
      cluster: method.cluster[i], clusterName: clusterName(method.cluster[i]), x: method.x[i], y: method.y[i],
      known: trusted ? "yes" : "no", truth: poisoned === null ? "unknown" : poisoned ? "poisoned" + attack : "honest",
    };
  });
  return method.rows;
}

function matches(row) { return row.client.toLowerCase().includes(state.search.toLowerCase()); }

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function sign(name) {
  return element("span", OUTCOMES.find((one) => one.name === name).sign, { class: `sign ${name}`, "aria-hidden": "true" });
}

function forget(id) {
  if (views[id]) views[id].finalize();
  delete views[id];
  byId(id).replaceChildren();
}

const MOST_ELEMENTS = 3000; // of an SVG, before it is slow

async function draw(id, spec, datasets, onClick) {
  forget(id);
  const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  // As a syntax tree, expressions need no eval, which the page's policy forbids.
  const result = await vegaEmbed("#" + id, { $schema: "https://vega.github.io/schema/vega-lite/v6.json", ...spec, datasets, config: config() },
    { actions: false, renderer: (datasets.rows || []).length > MOST_ELEMENTS ? "canvas" : "svg", ast: true, tooltip: { theme } });
  views[id] = result.view;
  if (onClick) result.view.addEventListener("click", (_, item) => { if (item && item.mark.marktype !== "line" && item.datum && item.datum.client) onClick(item.datum); });
}

function choose(row) {
  goTo(data.rounds.indexOf(row.round));
  state.client = row.client;
  show("round", "client");
}

function goTo(place) {
  state.round = Math.max(0, Math.min(data.rounds.length - 1, place));
  byId("round").value = String(state.round);
  byId("previous").disabled = state.round === 0;
  byId("next").disabled = state.round === data.rounds.length - 1;
}

function drawMethods() {
  const rows = data.methods.flatMap((method) => {
    const counts = data.rounds.map(() => [0, 0]);
    method.round.forEach((place, i) => { counts[place][0] += 1 - method.accepted[i]; counts[place][1] += 1; });
    return counts.map(([rejected, all], place) => ({ method: method.name, round: data.rounds[place], share: all ? rejected / all : null }))
      .filter((row) => row.share !== null);
  });
  return draw("chart-methods", methodsSpec(byId("chart-methods").clientWidth, data.methods.map((method) => method.name)), { rows });
}

function matrixClients(rows) {
  const share = new Map();
  for (const row of rows) {
    const [rejected, all] = share.get(row.client) || [0, 0];
    share.set(row.client, [rejected + (row.accepted ? 0 : 1), all + 1]);
  }
  const clients = [...share.keys()].sort();
  const part = (client) => share.get(client)[0] / share.get(client)[1];
  return state.order === "id" ? clients : clients.sort((a, b) => part(b) - part(a));
}

async function drawMatrix() {
  const rows = rowsOf(data.methods[state.method]).filter(matches), clients = matrixClients(rows);
  byId("matrix-hint").hidden = !rows.length;
  if (!rows.length) { forget("chart-matrix"); return; }
  const width = Math.max(byId("chart-matrix").clientWidth - 4, Math.min(data.rounds.length * 7 + 120, 4000));
  const { signs, ...spec } = matrixSpec(width, clients);
  await draw("chart-matrix", spec, { rows, signs: signs ? rows.filter((row) => row.outcome !== "kept") : [], ...chosenCells(clients) }, choose);
  views["chart-matrix"].clients = clients;
}

function chosenCells(clients) {
  return { chosenRound: [{ round: data.rounds[state.round] }],
    chosenClient: clients.includes(state.client) ? [{ client: state.client }] : [] };
}

// Drawing all cells takes a moment; moving the frames over them does not.
function markMatrix() {
  const view = views["chart-matrix"];
  if (!view) return Promise.resolve();
  for (const [name, values] of Object.entries(chosenCells(view.clients))) view.data(name, values);
  return view.runAsync();
}

function drawSuspicion() {
  const method = data.methods[state.method], all = rowsOf(method).filter((row) => Number.isFinite(row.score));
  const chosen = state.client !== null ? (row) => row.client === state.client : state.search ? matches : () => false;
  byId("suspicion-hint").textContent = (state.client !== null ? `Client ${state.client.length > 60 ? state.client.slice(0, 60) + "…" : state.client}; the others are faint.`
    : state.search ? "Clients that match the search; the others are faint." : "Choose a client in a picture or a table, or search for one.");
  const threshold = method.threshold === null ? [] : [{ score: method.threshold, label: `rejected above ${method.threshold}` }];
  if (!all.length) { forget("chart-suspicion"); return Promise.resolve(); }
  const [least, most] = [...all, ...threshold].reduce(([a, b], row) => [Math.min(a, row.score), Math.max(b, row.score)], [Infinity, -Infinity]);
  const margin = 0.04 * (most - least) || Math.abs(most) || 1;
  return draw("chart-suspicion", suspicionSpec(byId("chart-suspicion").clientWidth - 4, [least - margin, most + margin]),
    { rows: all.filter(chosen), others: all, threshold, now: [{ round: data.rounds[state.round] }] }, choose);
}

const DRAWN = { // what each change draws anew
  method: ["matrix", "plane", "suspicion"], round: ["mark", "plane", "suspicion"], client: ["mark", "plane", "suspicion"],
  search: ["matrix", "suspicion"], order: ["matrix"], plane: ["plane"], all: ["methods", "matrix", "plane", "suspicion"],
};
const DRAW = { methods: drawMethods, matrix: drawMatrix, mark: markMatrix, plane: drawPlane, suspicion: drawSuspicion };
const wanted = new Set();
let busy = false;

// One drawing at a time: what is asked for meanwhile is drawn after it, once. `data-ready` is for those who wait.
async function show(...changes) {
  const method = data.methods[state.method], number = data.rounds[state.round];
  document.querySelectorAll(".round").forEach((span) => { span.textContent = number; });
  const rows = rowsOf(method).filter((row) => row.place === state.round);
  const one = state.client === null ? null : rows.find((row) => row.client === state.client);
  byId("announcement").textContent = `${method.name}, round ${number}: ${rows.filter((row) => !row.accepted).length} of ${rows.length} uploads rejected`
    + (state.client === null ? "" : `; ${state.client} ${one ? `${one.verdict}, ${one.reason}` : "uploaded nothing"}`);
  if (!changes.every((change) => change === "order" || change === "plane")) keepingFocus(fillTables);
  for (const change of changes) for (const part of DRAWN[change]) wanted.add(part);
  document.body.dataset.ready = "no";
  if (busy) return;
  busy = true;
  try {
    while (wanted.size) {
      const parts = [...wanted];
      wanted.clear();
      for (const part of parts) await DRAW[part]();
    }
  } finally {
    busy = false;
    document.body.dataset.ready = "yes";
  }
}

function fillLegend() {
  const present = new Set(data.methods.flatMap((method) => method.accepted.map((accepted, i) =>
    method.poisoned[i] === 1 ? (accepted ? "missed" : "caught") : accepted ? "kept" : method.poisoned[i] === 0 ? "lost" : "rejected")));
  byId("legend").replaceChildren(...OUTCOMES.filter((one) => present.has(one.name)).map((one) => {
    const item = element("span");
    item.append(element("span", one.sign, { class: `chip ${one.name}`, "aria-hidden": "true" }), one.title);
    return item;
  }));
}

// Arrow keys in the matrix: to the sides through rounds, up and down through clients.
function walk(event) {
  const sides = { ArrowLeft: -1, ArrowRight: 1 }[event.key], ways = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (sides) goTo(state.round + sides);
  else if (ways && views["chart-matrix"]) {
    const clients = views["chart-matrix"].clients, place = clients.indexOf(state.client);
    state.client = clients[place < 0 ? 0 : Math.max(0, Math.min(clients.length - 1, place + ways))];
  } else if (event.key === "Escape") state.client = null;
  else return;
  event.preventDefault();
  show("round", "client");
}

function start() {
  const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
  byId("subtitle").textContent = `${data.title}: ${count(data.rounds.length, "round")}, ${count(data.clients.length, "client")}, ${count(data.methods.length, "method")}; encagg ${data.version}`;
  data.methods.forEach((method, i) => byId("method").append(element("option", method.name, { value: i })));
  data.rounds.forEach((number, i) => byId("round").append(element("option", number, { value: i })));
  byId("signature").textContent = JSON.stringify(data.signature, null, 2);
  if (data.run) byId("run").append(element("p", data.run));
  const on = (id, event, change) => byId(id).addEventListener(event, change);
  on("method", "change", (event) => { state.method = Number(event.target.value); show("method"); });
  on("round", "change", (event) => { goTo(Number(event.target.value)); show("round"); });
  on("previous", "click", () => { goTo(state.round - 1); show("round"); });
  on("next", "click", () => { goTo(state.round + 1); show("round"); });
  let typing = null;
  on("search", "input", (event) => { // who types is waited for
    document.body.dataset.ready = "no";
    clearTimeout(typing);
    typing = setTimeout(() => { state.search = event.target.value; state.client = null; show("search", "client"); }, 150);
  });
  on("order", "change", (event) => { state.order = event.target.value; show("order"); });
  on("clustering", "change", (event) => { state.second = event.target.value === "second"; show("plane"); });
  on("close", "change", (event) => { state.close = event.target.checked; show("plane"); });
  on("controls", "submit", (event) => event.preventDefault());
  on("chart-matrix", "keydown", walk);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show("all"));
  let timer = null, width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return; // a phone's address bar comes and goes
    width = window.innerWidth;
    clearTimeout(timer);
    timer = setTimeout(() => show("all"), 200);
  });
  goTo(0);
  fillScores();
  fillLegend();
  return show("all");
}

start();
