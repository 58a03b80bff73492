"use strict";
// The tables: the same facts as text, to be sorted, searched, and chosen from.

const ROUND_COLUMNS = [["client", "client"], ["verdict", "verdict"], ["score", "suspicion"], ["reason", "reason"],
  ["cluster", "cluster"], ["votes", "rejected by"], ["known", "known-benign"], ["truth", "truth"]];
const CLIENT_COLUMNS = [["client", "client"], ["uploads", "uploads"], ["rejected", "rejected"], ["share", "share rejected"],
  ["mean", "mean suspicion"], ["poisoned", "poisoned"], ["known", "known-benign"], ["reason", "usual reason"]];
const NUMERIC = new Set(["score", "cluster", "votes", "uploads", "rejected", "share", "mean", "poisoned"]);
const METRICS = [["precision", "precision"], ["recall", "recall"], ["f1", "F1"], ["fpr", "FPR"], ["auroc", "AUROC"],
  ["clean_fpr", "clean FPR"], ["rejected", "rejected"]];
const sorting = { "table-round": ["score", -1], "table-clients": ["share", -1] };

function cellText(row, name) {
  const value = row[name];
  if (value === null || value === undefined) return "–";
  if (name === "share") return (100 * value).toFixed(0) + " %";
  if (name === "mean") return value.toPrecision(3);
  if (name === "score") return row.scoreText;
  if (name === "cluster") return row.clusterName;
  if (name === "votes") return `${value} of ${data.methods.length}`;
  return String(value);
}

function sorted(rows, key, direction) {
  const last = direction > 0 ? Infinity : -Infinity; // empty cells come last either way
  const value = (row) => row[key] === null || row[key] === undefined ? last : row[key];
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  return [...rows].sort((a, b) => order(value(a), value(b)) * direction || order(a.client, b.client));
}

function fillTable(id, columns, rows) {
  const [key, direction] = sorting[id], head = element("tr"), body = element("tbody");
  for (const [name, title] of columns) {
    const cell = element("th", null, { scope: "col", "aria-sort": name !== key ? "none" : direction > 0 ? "ascending" : "descending" });
    const button = element("button", title + (name === key ? (direction > 0 ? " ▴" : " ▾") : ""), { type: "button", "data-focus": `${id} sort ${name}` });
    button.addEventListener("click", () => {
      sorting[id] = [name, name === key ? -direction : NUMERIC.has(name) ? -1 : 1];
      keepingFocus(() => fillTable(id, columns, rows));
    });
    if (NUMERIC.has(name)) cell.className = "number";
    cell.append(button);
    head.append(cell);
  }
  for (const row of sorted(rows, key, direction)) {
    const line = element("tr", null, row.client === state.client ? { "aria-current": "true" } : {});
    for (const [name] of columns) {
      const cell = element("td", null, NUMERIC.has(name) ? { class: "number" } : name === "client" ? { class: "id" } : {});
      if (name === "client") {
        const button = element("button", row.client, { type: "button", class: "plain", "data-focus": `${id} client ${row.client}` });
        button.addEventListener("click", () => { state.client = state.client === row.client ? null : row.client; show("client"); });
        cell.append(button);
      } else if (name === "verdict") {
        cell.append(sign(row.outcome), row.verdict);
      } else {
        cell.textContent = cellText(row, name);
      }
      line.append(cell);
    }
    body.append(line);
  }
  if (!rows.length) {
    const line = element("tr");
    line.append(element("td", "No client matches.", { colspan: columns.length }));
    body.append(line);
  }
  const header = element("thead");
  header.append(head);
  byId(id).replaceChildren(header, body);
}

// A table that is filled anew must not lose the place of somebody who uses the keyboard.
function keepingFocus(fill) {
  const key = document.activeElement && document.activeElement.dataset.focus;
  fill();
  if (key) for (const button of document.querySelectorAll("[data-focus]")) if (button.dataset.focus === key) button.focus({ preventScroll: true });
}

// How many methods rejected each client of a round.
function votesOf(place) {
  const votes = new Map();
  for (const method of data.methods) {
    method.round.forEach((round, i) => { if (round === place && method.accepted[i] === 0) votes.set(method.client[i], (votes.get(method.client[i]) || 0) + 1); });
  }
  return new Map([...votes].map(([client, count]) => [data.clients[client], count]));
}

function fillTables() {
  const method = data.methods[state.method], rows = rowsOf(method).filter(matches), votes = votesOf(state.round);
  const several = data.methods.length > 1;
  fillTable("table-round", ROUND_COLUMNS.filter(([name]) => several || name !== "votes"),
    rows.filter((row) => row.place === state.round).map((row) => ({ ...row, votes: votes.get(row.client) || 0 })));
  const clients = new Map();
  for (const row of rows) {
    const sum = clients.get(row.client) || { client: row.client, uploads: 0, rejected: 0, poisoned: null, scores: [], reasons: new Map(), known: "no" };
    sum.uploads += 1;
    sum.rejected += row.accepted ? 0 : 1;
    if (row.truth !== "unknown") sum.poisoned = (sum.poisoned || 0) + (row.truth === "honest" ? 0 : 1);
    if (Number.isFinite(row.score)) sum.scores.push(row.score);
    sum.reasons.set(row.reason, (sum.reasons.get(row.reason) || 0) + 1);
    if (row.trusted) sum.known = "yes";
    clients.set(row.client, sum);
  }
  fillTable("table-clients", CLIENT_COLUMNS, [...clients.values()].map((sum) => ({
    ...sum, share: sum.rejected / sum.uploads, mean: sum.scores.length ? sum.scores.reduce((a, b) => a + b, 0) / sum.scores.length : null,
    reason: [...sum.reasons].sort((a, b) => b[1] - a[1])[0][0],
  })));
}

function figure(value) { return typeof value === "number" ? value.toFixed(3) : "–"; }

function fillScores() {
  const scored = new Map(((data.score || {}).methods || []).map((one) => [one.method, one]));
  const metrics = METRICS.filter(([name]) => name === "rejected" || [...scored.values()].some((one) => typeof one.metrics[name] === "number"));
  const head = element("tr"), body = element("tbody"), header = element("thead");
  head.append(element("th", "method", { scope: "col" }), ...metrics.map(([, title]) => element("th", title, { scope: "col", class: "number" })));
  for (const method of data.methods) {
    const line = element("tr"), known = scored.get(method.name);
    line.append(element("td", method.name, { class: "id" }));
    for (const [name] of metrics) {
      const cell = element("td", figure(known ? known.metrics[name] : name === "rejected" ? shareRejected(method) : null), { class: "number" });
      const pair = known && known.intervals[name];
      if (Array.isArray(pair)) cell.append(element("small", `${figure(pair[0])} – ${figure(pair[1])}`));
      line.append(cell);
    }
    body.append(line);
  }
  header.append(head);
  byId("methods").replaceChildren(header, body);
  byId("scores-hint").textContent = "Known-benign clients are never counted."
    + (scored.size ? " Small: 95 % intervals; –: undefined."
      : " No upload has a label, so there is nothing to score against: `encagg score --labels FILE --json` makes a score to show here.");
  fillGates((data.score || {}).gates || []);
}

function shareRejected(method) {
  const counted = method.accepted.filter((_, i) => method.trusted[i] === 0);
  return counted.length ? counted.filter((accepted) => accepted === 0).length / counted.length : null;
}

function fillGates(gates) {
  if (!gates.length) return;
  const failed = gates.filter((gate) => !gate.passed), list = element("ul", null, { class: "gates" });
  for (const gate of [...failed, ...gates.filter((one) => one.passed)]) {
    const subject = gate.metric.replace("_", " ") + (gate.attack ? ` of ${gate.attack}` : "");
    const relation = { ">=": "≥", "<=": "≤" }[gate.relation] || gate.relation;
    const text = `${gate.method}: ${subject} ${figure(gate.figure)}, bound ${relation} ${gate.bound}`;
    list.append(element("li", text + (gate.passed ? "" : ` (${gate.why})`), { class: gate.passed ? "passed" : "failed" }));
  }
  const title = failed.length ? `Gates: ${failed.length} of ${gates.length} failed` : `Gates: all ${gates.length} passed`;
  byId("gates").replaceChildren(element("h3", title), list);
}
