"use strict";
// What the page does: one state (method, round, client, search), from which every picture and table is drawn anew.
// Text from files reaches the page through textContent and chart data alone, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const state = { method: 0, round: 0, client: null, search: "" };
const views = {};

function rowsOf(method) {
  if (method.rows) return method.rows;
  method.rows = method.round.map((round, i) => {
    const poisoned = method.poisoned[i], accepted = method.accepted[i] === 1;
    const outcome = poisoned === 1 ? (accepted ? "missed" : "caught")
      : accepted ? "kept" : poisoned === 0 ? "lost" : "rejected";
    const attack = method.attack[i] === null ? "" : ` (${method.attacks[method.attack[i]]})`;
    return {
      place: round, round: data.rounds[round], client: data.clients[method.client[i]], accepted, outcome,
      verdict: accepted ? "accepted" : "rejected", reason: method.reasons[method.reason[i]], score: method.score[i],
      cluster: method.cluster[i], x: method.x[i], y: method.y[i], trusted: method.trusted[i] === 1,
      known: method.trusted[i] === 1 ? "yes" : "no",
      truth: poisoned === null ? "unknown" : poisoned ? "poisoned" + attack : "honest",
      shape: method.trusted[i] === 1 ? "known-benign" : accepted ? "client" : "rejected",
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

function widthOf(id, most = 1100) { return Math.max(220, Math.min(byId(id).clientWidth - 70, most)); }

function draw(id, spec, datasets, onClick) {
  for (const [name, values] of Object.entries(datasets)) spec.datasets = { ...spec.datasets, [name]: values };
  if (views[id]) views[id].finalize();
  return vegaEmbed("#" + id, { $schema: "https://vega.github.io/schema/vega-lite/v6.json", ...spec, config: config() },
    { actions: false, renderer: "svg", tooltip: { theme: matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light" } })
    .then((result) => {
      views[id] = result.view;
      if (onClick) result.view.addEventListener("click", (_, item) => { if (item && item.datum && item.datum.client) onClick(item.datum); });
    });
}

function choose(row) {
  state.round = data.rounds.indexOf(row.round);
  state.client = row.client;
  byId("round").value = String(state.round);
  show(["matrix", "round"]);
}

function drawMethods() {
  const rows = data.methods.flatMap((method) => {
    const counts = data.rounds.map(() => [0, 0]);
    rowsOf(method).forEach((row) => { counts[row.place][0] += row.accepted ? 0 : 1; counts[row.place][1] += 1; });
    return counts.map(([rejected, all], place) => ({ method: method.name, round: data.rounds[place], share: all ? rejected / all : null }))
      .filter((row) => row.share !== null);
  });
  return draw("chart-methods", methodsSpec(widthOf("chart-methods"), data.methods.length), { rows });
}

function drawMatrix() {
  const rows = rowsOf(data.methods[state.method]).filter(matches)
    .map((row) => ({ ...row, chosen: row.place === state.round || row.client === state.client }));
  const clients = new Set(rows.map((row) => row.client)).size;
  return draw("chart-matrix", matrixSpec(widthOf("chart-matrix"), data.rounds.length, clients), { rows }, choose);
}

function drawPlane() {
  const method = data.methods[state.method];
  const rows = rowsOf(method).filter((row) => row.place === state.round && row.x !== null && row.y !== null)
    .map((row) => ({ ...row, chosen: row.client === state.client }));
  const trace = (data.traces[String(data.rounds[state.round])] || {})[method.name] || {};
  const hint = byId("plane-hint");
  if (!rows.length) {
    if (views["chart-plane"]) { views["chart-plane"].finalize(); delete views["chart-plane"]; }
    byId("chart-plane").replaceChildren();
    hint.textContent = "This method places no client in a plane.";
    return Promise.resolve();
  }
  const circles = trace.radius ? rows.filter((row) => row.trusted).flatMap((row) =>
    Array.from({ length: 49 }, (_, step) => ({ id: row.client, step,
      x: row.x + trace.radius * Math.cos(step * Math.PI / 24), y: row.y + trace.radius * Math.sin(step * Math.PI / 24) }))) : [];
  const pseudo = (trace.pseudo || []).map(([x, y]) => ({ x, y }));
  hint.textContent = "Diamonds are known-benign clients, triangles are rejected ones."
    + (trace.radius ? " Dashed: the radius around known-benign clients; crosses: pseudo-gradients." : "");
  return draw("chart-plane", planeSpec(Math.min(widthOf("chart-plane"), 440), squareOf([...rows, ...circles])), { rows, circles, pseudo }, choose);
}

// The same units on both axes: a radius is a circle.
function squareOf(points) {
  const bounds = (key) => [Math.min(...points.map((p) => p[key])), Math.max(...points.map((p) => p[key]))];
  const [x, y] = [bounds("x"), bounds("y")];
  const half = Math.max(x[1] - x[0], y[1] - y[0], 1e-12) * 0.55;
  return { x: [(x[0] + x[1]) / 2 - half, (x[0] + x[1]) / 2 + half], y: [(y[0] + y[1]) / 2 - half, (y[0] + y[1]) / 2 + half] };
}

function drawSuspicion() {
  const method = data.methods[state.method], all = rowsOf(method).filter((row) => row.score !== null);
  const chosen = state.client !== null ? (row) => row.client === state.client : state.search ? matches : () => false;
  const rows = all.filter(chosen);
  byId("suspicion-hint").textContent = state.client !== null ? `Client ${state.client}; the others are faint.`
    : state.search ? "Clients that match the search; the others are faint." : "Choose a client in a picture or a table, or search for one.";
  const threshold = method.threshold === null ? [] : [{ value: method.threshold }];
  return draw("chart-suspicion", suspicionSpec(Math.min(widthOf("chart-suspicion"), 500)), { rows, others: all, threshold }, choose);
}

const ROUND_COLUMNS = [["client", "client"], ["verdict", "verdict"], ["score", "suspicion"], ["reason", "reason"],
  ["cluster", "cluster"], ["known", "known-benign"], ["truth", "truth"]];
const CLIENT_COLUMNS = [["client", "client"], ["uploads", "uploads"], ["rejected", "rejected"], ["share", "share rejected"],
  ["mean", "mean suspicion"], ["poisoned", "poisoned"], ["known", "known-benign"], ["reason", "usual reason"]];
const sorting = { "table-round": ["score", -1], "table-clients": ["share", -1] };

function fillTable(id, columns, rows) {
  const [key, direction] = sorting[id], head = element("tr"), body = element("tbody");
  const numeric = new Set(["score", "cluster", "uploads", "rejected", "share", "mean", "poisoned"]);
  for (const [name, title] of columns) {
    const cell = element("th", null, { scope: "col", "aria-sort": name !== key ? "none" : direction > 0 ? "ascending" : "descending" });
    const button = element("button", title + (name === key ? (direction > 0 ? " ▲" : " ▼") : ""), { type: "button" });
    button.addEventListener("click", () => {
      sorting[id] = [name, name === key ? -direction : numeric.has(name) ? -1 : 1];
      fillTable(id, columns, rows);
      byId(id).querySelectorAll("th button")[columns.findIndex(([n]) => n === name)].focus();
    });
    if (numeric.has(name)) cell.className = "number";
    cell.append(button);
    head.append(cell);
  }
  const value = (row) => row[key] === null || row[key] === undefined ? -Infinity : row[key];
  const sorted = [...rows].sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * direction || (a.client < b.client ? -1 : 1));
  for (const row of sorted) {
    const line = element("tr", null, { "aria-selected": String(row.client === state.client) });
    columns.forEach(([name]) => {
      const cell = element("td", null, numeric.has(name) ? { class: "number" } : name === "client" ? { class: "id" } : {});
      if (name === "client") {
        const button = element("button", row.client, { type: "button" });
        button.addEventListener("click", () => { state.client = row.client; show(["matrix", "round"]); });
        cell.append(button);
      } else if (name === "verdict") {
        cell.append(element("span", null, { class: "swatch", style: `background: var(--${row.outcome})` }), row.verdict);
      } else {
        cell.textContent = row[name] === null || row[name] === undefined ? "" : name === "share" ? (100 * row.share).toFixed(0) + " %"
          : name === "mean" ? row.mean.toPrecision(3) : row[name];
      }
      line.append(cell);
    });
    body.append(line);
  }
  const header = element("thead");
  header.append(head);
  byId(id).replaceChildren(header, body);
}

function fillTables() {
  const rows = rowsOf(data.methods[state.method]).filter(matches);
  fillTable("table-round", ROUND_COLUMNS, rows.filter((row) => row.place === state.round));
  const clients = new Map();
  for (const row of rows) {
    const sum = clients.get(row.client) || { client: row.client, uploads: 0, rejected: 0, poisoned: null, scores: [], reasons: {}, known: row.known };
    sum.uploads += 1;
    sum.rejected += row.accepted ? 0 : 1;
    if (row.truth !== "unknown") sum.poisoned = (sum.poisoned || 0) + (row.truth === "honest" ? 0 : 1);
    if (row.score !== null) sum.scores.push(row.score);
    sum.reasons[row.reason] = (sum.reasons[row.reason] || 0) + 1;
    clients.set(row.client, sum);
  }
  fillTable("table-clients", CLIENT_COLUMNS, [...clients.values()].map((sum) => ({
    ...sum, share: sum.rejected / sum.uploads, mean: sum.scores.length ? sum.scores.reduce((a, b) => a + b, 0) / sum.scores.length : null,
    reason: Object.entries(sum.reasons).sort((a, b) => b[1] - a[1])[0][0],
  })));
}

function fillScores() {
  const head = element("tr"), body = element("tbody"), metrics = ["precision", "recall", "f1", "fpr", "auroc", "clean_fpr", "rejected"];
  const scored = new Map(((data.score || {}).methods || []).map((one) => [one.method, one.metrics]));
  ["method", ...metrics].forEach((title, i) => head.append(element("th", title.replace("_", " "), { scope: "col", class: i ? "number" : "" })));
  for (const method of data.methods) {
    const line = element("tr"), rows = rowsOf(method).filter((row) => !row.trusted), known = scored.get(method.name) || {};
    line.append(element("td", method.name, { class: "id" }));
    for (const metric of metrics) {
      const figure = metric in known ? known[metric] : metric === "rejected" && rows.length ? rows.filter((row) => !row.accepted).length / rows.length : null;
      line.append(element("td", figure === null ? "–" : figure.toFixed(3), { class: "number" }));
    }
    body.append(line);
  }
  const header = element("thead");
  header.append(head);
  byId("methods").replaceChildren(header, body);
  const gates = (data.score || {}).gates || [];
  if (!gates.length) return;
  const list = element("ul");
  for (const gate of gates) {
    const subject = gate.metric + (gate.attack ? ` of ${gate.attack}` : "");
    const figure = gate.figure === null ? "undefined" : gate.figure.toPrecision(4);
    list.append(element("li", `${gate.method}: ${subject} ${figure} ${gate.relation} ${gate.bound}`, { class: gate.passed ? "passed" : "failed" }));
  }
  byId("gates").replaceChildren(element("h3", "Gates"), list);
}

function show(parts) {
  const method = data.methods[state.method], number = data.rounds[state.round];
  document.querySelectorAll(".round").forEach((span) => { span.textContent = number; });
  const rows = rowsOf(method).filter((row) => row.place === state.round);
  byId("announcement").textContent = `${method.name}, round ${number}: ${rows.filter((row) => !row.accepted).length} of ${rows.length} uploads rejected`;
  fillTables();
  const drawn = [drawPlane(), drawSuspicion()];
  if (parts.includes("matrix")) drawn.push(drawMatrix());
  if (parts.includes("methods")) drawn.push(drawMethods());
  return Promise.all(drawn).then(() => { document.body.dataset.ready = "yes"; });
}

function fillLegend() {
  const present = new Set(data.methods.flatMap((method) => rowsOf(method).map((row) => row.outcome)));
  byId("legend").replaceChildren(...OUTCOMES.filter(([name]) => present.has(name)).map(([name, title]) => {
    const item = element("span");
    item.append(element("i", null, { class: "swatch", style: `background: var(--${name})` }), title);
    return item;
  }));
}

function start() {
  byId("subtitle").textContent = `${data.title}: ${data.rounds.length} rounds, ${data.clients.length} clients, ${data.methods.length} method${data.methods.length === 1 ? "" : "s"}; encagg ${data.version}`;
  data.methods.forEach((method, i) => byId("method").append(element("option", method.name, { value: i })));
  data.rounds.forEach((number, i) => byId("round").append(element("option", number, { value: i })));
  byId("signature").textContent = JSON.stringify(data.signature, null, 2);
  if (data.run) byId("run").append(element("p", data.run));
  byId("method").addEventListener("change", (event) => { state.method = Number(event.target.value); show(["matrix"]); });
  byId("round").addEventListener("change", (event) => { state.round = Number(event.target.value); show(["matrix"]); });
  const step = (by) => {
    state.round = Math.max(0, Math.min(data.rounds.length - 1, state.round + by));
    byId("round").value = String(state.round);
    show(["matrix"]);
  };
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("search").addEventListener("input", (event) => { state.search = event.target.value; state.client = null; show(["matrix"]); });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(["matrix", "methods"]));
  let timer = null;
  window.addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(() => show(["matrix", "methods"]), 200); });
  fillScores();
  fillLegend();
  show(["matrix", "methods"]);
}

start();
