// The page over /overview. Whatever the server tells goes in as text, never as markup: the policy that the
// page comes with (Trusted Types) has a browser refuse anything else. Nothing is loaded from elsewhere.

const at = id => document.getElementById(id);
const MORE = 50, MOST = 500, NEWS = 400, DRAWN = 100;
const shown = { token: "", tag: "", url: "", most: MORE, skew: 0, last: 0, began: 0, news: [], told: null, paused: false };
let timer = 0, asking = 0;

// --- making and changing nodes ---

function made(tag, text = "", name = "") {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  if (name) node.className = name;
  return node;
}

function drawn(tag, attributes, title = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (title) node.append(Object.assign(document.createElementNS(node.namespaceURI, "title"), { textContent: title }));
  return node;
}

// What has not changed is not touched: a screen reader says again what is, and a selection is lost by it.
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function named(node, name) {
  if (node.className !== name) node.className = name;
}

// A list of nodes that stay as long as their key does, so that neither focus nor what is open is lost.
function kept(parent, items, key, make) {
  const before = parent.kept || new Map(), after = new Map(), names = new Set(items.map(key));
  // First, or what comes after one that goes would be moved, and lose the focus.
  for (const [name, one] of before) if (!names.has(name)) one.node.remove();
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    if (after.has(name)) continue;
    const one = before.get(name) || make(item);
    after.set(name, one);
    one.item = item;
    if (one.node === place) place = place.nextElementSibling;
    else parent.insertBefore(one.node, place);
    one.change(item);
  }
  parent.kept = after;
}

// --- words ---

const now = () => Date.now() / 1000 + shown.skew;

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + s % 60 + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
}

function clock(moment) {
  const date = new Date(moment * 1000), time = date.toLocaleTimeString([], { hourCycle: "h23" });
  return date.toDateString() === new Date(now() * 1000).toDateString()
    ? time : date.toLocaleDateString([], { month: "short", day: "numeric" }) + " " + time;
}

function timed(moment, text = clock(moment)) {
  const node = made("time", text);
  node.dateTime = new Date(moment * 1000).toISOString();
  return node;
}

const since = moment => moment === null ? "" : `since ${clock(moment)} (${span(now() - moment)})`;
const times = (count, one, many) => `${count} ${count === 1 ? one : many}`;
const WORDS = {
  "lease.issued": "issued", "lease.rotated": "rotated", "login": "logged in", "lease.renewed": "renewed",
  "token.renewed": "renewed", "vault.recovered": "read again", "lease.expired": "expired", "lease.lost": "lost",
  "token.lost": "lost", "vault.failed": "call to Vault failed", "credential.rejected": "answered 401 by its service",
};
const CAME = ["lease.issued", "lease.rotated", "login"], WELL = ["lease.renewed", "token.renewed", "vault.recovered"];
const FAILED = ["vault.failed", "credential.rejected"];

function happened(mark) {
  const often = mark.times > 1 ? `, ${mark.times} times` : "";
  return `${WORDS[mark.name] || mark.name}${often}${mark.reason ? ": " + mark.reason : ""}`;
}

function whose(row) {
  if (row.caller) return "for " + row.caller;
  return row.shared ? "" : "for a request"; // of nobody that we know
}

function state(row) {
  return row.refused ? "refused" : row.state;
}

// What there is to say besides of a lease that does not fail, or does not only; each reason once.
function asked(row) {
  const why = reason => reason && !row.troubles.some(t => t.why === reason) ? ": " + reason : "";
  return [
    row.wanted ? "replacement asked for" : "",
    row.revoking ? `${row.revoking} still to be revoked at Vault${why(row.revoke_error)}` : "",
    row.refused ? `${times(row.refused, "request", "requests")} answered 401, the first at ${clock(row.refused_at)}` : "",
    row.failures ? `${times(row.failures, "failure", "failures")} in a row${why(row.last_error)}` : "",
    row.optional ? "optional" : "",
    row.not_after === null ? "" : `its certificate ends ${clock(row.not_after)}`,
  ].filter(Boolean).join("; ");
}

function ends(row) {
  const next = row.next_at === null ? "" : `next call to Vault in ${span(row.next_at - now())}`;
  const whole = row.ttl === null ? "" : " of " + span(row.ttl);
  const end = !row.usable ? "no credential" : row.ends_at === null ? "no end" : `ends in ${span(row.ends_at - now())}${whole}`;
  return [end, next].filter(Boolean).join(" · ");
}

function life(row) {
  const well = row.marks.filter(mark => WELL.includes(mark.name) && mark.at >= (row.began_at || 0) - 1).length;
  const used = row.began_at === null ? "" : `In use for ${span(now() - row.began_at)}`;
  return [used, well ? `renewed or read again ${times(well, "time", "times")} of late` : "", ends(row)].filter(Boolean).join(", ");
}

// --- a lease's life as a bar ---

function bar() {
  const svg = drawn("svg", { class: "bar", role: "img" });
  const track = drawn("rect", { class: "track", x: 0, y: 6, width: "100%", height: 8, rx: 4 });
  const past = drawn("rect", { y: 6, height: 8, rx: 4 }), rest = drawn("rect", { class: "rest", y: 6, height: 8, rx: 4 });
  const cursor = drawn("line", { class: "now", y1: 1, y2: 19 }), marks = drawn("g", {});
  svg.append(track, rest, past, marks, cursor);
  return { svg, change: row => changeBar({ svg, past, rest, cursor, marks }, row) };
}

// To the end, or the next call, from the oldest mark that leaves a quarter for what is to come; where there is
// no credential, from the oldest that is known.
function stretch(row) {
  const here = now(), alive = row.usable && row.ends_at !== null;
  const oldest = Math.min(...row.marks.map(mark => mark.at), row.began_at ?? here, here - 1);
  const ahead = Math.max(alive ? row.ends_at - here : 0, row.next_at === null ? 0 : row.next_at - here);
  const end = here + (ahead || (here - oldest) / 3);
  return { from: row.usable ? Math.max(oldest, here - 3 * (end - here)) : oldest, here, end };
}

function changeBar(parts, row) {
  const { from, here, end } = stretch(row), length = Math.max(end - from, 0.001);
  const percent = moment => (100 * Math.min(1, Math.max(0, (moment - from) / length))).toFixed(2) + "%";
  const wide = (node, first, last) => {
    node.setAttribute("x", percent(first));
    node.setAttribute("width", (100 * Math.max(0, (Math.min(last, end) - Math.max(first, from)) / length)).toFixed(2) + "%");
  };
  parts.past.setAttribute("class", "past " + (row.tone === "bad" || row.tone === "warn" ? row.tone : ""));
  wide(parts.past, row.usable ? row.began_at ?? from : here, here);
  wide(parts.rest, here, row.usable ? row.ends_at ?? end : here);
  for (const name of ["x1", "x2"]) parts.cursor.setAttribute(name, percent(here));
  const label = life(row);
  if (parts.svg.getAttribute("aria-label") !== label) parts.svg.setAttribute("aria-label", label);
  const marks = row.marks.filter(mark => mark.at >= from).map(mark => shape(mark, percent(mark.at)));
  if (row.next_at !== null && row.next_at > here)
    marks.push(drawn("circle", { class: "next", cx: percent(row.next_at), cy: 10, r: 3.5 }, `next call to Vault at ${clock(row.next_at)}`));
  parts.marks.replaceChildren(...marks);
}

function shape(mark, x) {
  const title = `${clock(mark.at)} ${happened(mark)}`;
  if (CAME.includes(mark.name)) return drawn("circle", { class: "came", cx: x, cy: 10, r: 5 }, title);
  if (WELL.includes(mark.name)) return drawn("rect", { class: "renewed", x, y: 2.5, width: 4, height: 15, transform: "translate(-2)" }, title);
  if (FAILED.includes(mark.name)) return drawn("circle", { class: "failed", cx: x, cy: 10, r: 4.5 }, title);
  return drawn("line", { class: "ended", x1: x, x2: x, y1: 0, y2: 20 }, title);
}

function drawLegend() {
  const entries = [["lease.issued", "issued or rotated"], ["lease.renewed", "renewed or read again"],
    ["vault.failed", "failed, or answered 401"], ["lease.lost", "ended or lost"], ["", "next call to Vault"]];
  at("legend").replaceChildren(...entries.map(([name, text]) => {
    const entry = made("span"), svg = drawn("svg", { class: "bar", viewBox: "0 0 16 20" });
    svg.append(name ? shape({ name, at: 0, times: 1 }, 8) : drawn("circle", { class: "next", cx: 8, cy: 10, r: 3.5 }));
    svg.querySelector("title")?.remove();
    entry.append(svg, text);
    return entry;
  }));
}

// --- leases ---

function lease() {
  const node = made("tr"), name = made("th"), title = made("span"), who = made("span", "", "soft small"), where = made("span", "", "soft small");
  node.setAttribute("role", "row");
  name.scope = "row";
  name.setAttribute("role", "rowheader");
  name.append(title, who, where);
  const cells = ["state", "life", "ids", "acts"].map(kind => {
    const cell = made("td", "", kind);
    cell.setAttribute("role", "cell");
    return cell;
  });
  const pill = made("span", "", "pill none"), why = made("span", "", "line small"), besides = made("span", "", "line soft small");
  cells[0].append(pill, why, besides);
  const life = bar(), left = made("span", "", "line soft small");
  cells[1].append(life.svg, left);
  const details = history();
  cells[2].append(details.node);
  const acts = ["rotate", "revoke"].map(what => button(what, () => one.item));
  cells[3].append(acts[0], " ", acts[1]);
  node.append(name, ...cells);
  screen.observe(node);
  const one = { node, change: row => {
    put(title, row.upstream);
    put(who, whose(row));
    put(where, "stage " + row.stage);
    put(pill, state(row));
    named(pill, "pill " + row.tone);
    put(why, row.troubles.map(t => `${t.what}${t.why ? ": " + t.why : ""} ${since(t.since)}`).join(". "));
    named(why, "line small " + (row.tone === "bad" ? "bad-text" : "warn-text"));
    put(besides, asked(row));
    life.change(row);
    put(left, ends(row));
    details.change(row);
    for (const act of acts) act.setAttribute("aria-label", `${act.textContent} ${row.upstream} in ${row.stage}`);
  } };
  return one;
}

function button(what, item) {
  const node = made("button", what === "rotate" ? "Rotate" : "Revoke", "quiet little");
  node.type = "button";
  node.addEventListener("click", () => confirmed(what, item(), node));
  return node;
}

function history() {
  const node = made("details"), summary = made("summary"), lease = made("code", "", "soft"), list = made("ol");
  const id = made("code");
  summary.append(id);
  node.append(summary, lease, list);
  let drawnAs = "";
  return { node, change: row => {
    put(id, row.credential_id || row.lease_id || "none");
    put(lease, row.credential_id ? row.lease_id : "");
    const as = JSON.stringify(row.marks);
    if (as === drawnAs) return;
    drawnAs = as;
    list.replaceChildren(...row.marks.slice().reverse().map(mark => {
      const entry = made("li");
      entry.append(timed(mark.at), " " + happened(mark));
      return entry;
    }));
  } };
}

function drawLeases(told) {
  kept(at("rows"), told.leases, row => JSON.stringify([row.stage, row.upstream, row.caller, row.shared ? "" : row.lease_id]), lease);
  const some = told.leases.length > 0;
  at("sheet").hidden = at("legend").hidden = !some;
  at("empty").hidden = some;
  put(at("empty"), told.total ? "Nothing fits this filter." : "No leases.");
  const all = times(told.total, "lease", "leases"), bad = told.failing_leases;
  put(at("counts"), `${told.found === told.total ? all : `${told.found} of ${all}`}, ${bad ? bad + " failing" : "none failing"}`);
  const left = told.found - told.leases.length;
  at("more").hidden = left <= 0 || shown.most >= MOST;
  put(at("more"), `Show ${Math.min(MORE, left)} more of ${left}`);
}

// --- what fails ---

function failure() {
  const node = made("li"), what = made("h3"), line = made("p"), why = made("span"), when = made("span", "", "soft small");
  const places = made("div", "", "places");
  line.append(why, " ", when);
  node.append(what, line, places);
  let named_ = "";
  return { node, change: item => {
    named(node, item.tone);
    put(what, item.count > 1 ? `${item.what} (${item.count})` : item.what);
    put(why, item.why);
    put(when, since(item.since));
    const as = JSON.stringify(item.places);
    if (as === named_) return;
    named_ = as;
    places.replaceChildren(...item.places.map(place), ...rest(item));
  } };
}

function place(where) {
  const node = made("span");
  if (!where.upstream) {
    node.append("stage " + where.stage);
    return node;
  }
  const link = made("button", `${where.upstream}${where.caller ? " for " + where.caller : ""} · ${where.stage}`, "link");
  link.type = "button";
  link.addEventListener("click", () => look(where.upstream));
  node.append(link);
  return node;
}

function rest(item) {
  if (item.count <= item.places.length) return [];
  const node = made("button", `and ${item.count - item.places.length} more`, "link");
  node.type = "button";
  node.addEventListener("click", () => { at("only").checked = true; look(""); });
  return [node];
}

function look(text) {
  at("find").value = text;
  shown.most = MORE;
  at("leases-title").scrollIntoView();
  at("find").focus({ preventScroll: true });
  refresh();
}

function drawFailing(told) {
  kept(at("troubles"), told.failing, item => JSON.stringify([item.tone, item.what, item.why]), failure);
  at("well").hidden = told.failing.length > 0;
  put(at("failing-title"), told.failing.length ? `Failing (${told.failing.length})` : "Failing");
  document.title = (told.failing.length ? `(${told.failing.length}) ` : "") + "vaultauthz";
}

// --- stages, gateways, certificates, the server ---

function stage() {
  const node = made("li"), head = made("div", "", "over"), title = made("h3"), pill = made("span", "", "pill none");
  const life = bar(), left = made("p", "", "soft small"), why = made("p", "", "bad-text"), how = made("p"), names = made("p"), nodes = made("ul", "", "bare");
  const details = history();
  head.append(title, pill);
  node.append(head, life.svg, left, why, how, names, nodes, details.node);
  return { node, change: item => {
    const row = item.login;
    put(title, item.stage);
    put(pill, row ? (row.usable ? "logged in" : "no login") : "new");
    named(pill, "pill " + (row ? row.tone : "none"));
    put(how, `${item.method}${item.mount ? ", at auth/" + item.mount : ""}${item.namespace ? ", in namespace " + item.namespace : ""}`);
    for (const part of [life.svg, left, details.node]) part.toggleAttribute("hidden", !row);
    put(why, row ? row.troubles.map(t => `${t.what}: ${t.why} ${since(t.since)}`).join(". ") : "");
    if (row) {
      life.change(row);
      put(left, ends(row).replace("no credential", "no token"));
      details.change(row);
    }
    const policies = row ? row.policies : [];
    kept(names, policies, policy => policy, policy => ({ node: made("span", policy, "chip"), change: () => {} }));
    kept(nodes, item.nodes, one => one.address, vault);
  } };
}

function vault() {
  const node = made("li"), address = made("code"), how = made("span", "", "small");
  node.append(address, " ", how);
  return { node, change: item => {
    put(address, item.address);
    put(how, item.works === null ? (item.since === null ? "not asked yet" : `not asked again; did not serve: ${item.reason} ${since(item.since)}`) : item.works ? "answers" : `does not serve: ${item.reason} ${since(item.since)}`);
    named(how, "small " + (item.works === null ? "soft" : item.works ? "" : "bad-text"));
  } };
}

function lineOf(parts) {
  const node = made("li"), spans = parts.map(() => made("span"));
  node.append(...spans);
  return { node, change: item => parts.forEach((part, index) => put(spans[index], part(item))) };
}

function drawGateways(list) {
  const entries = list.map((item, index) => ({ ...item, index }));
  kept(at("gateways"), entries, item => JSON.stringify([item.name, item.how, item.since, item.index]), () => lineOf([
    item => item.name || "unnamed", item => item.how,
    item => item.connections > 1 ? times(item.connections, "connection", "connections") : "",
    item => item.secrets === null ? "" : times(item.secrets, "secret", "secrets"), item => since(item.since),
  ]));
  at("nobody").hidden = list.length > 0;
}

function certificate() {
  const node = made("li"), dot = made("span", "", "dot"), parts = ["", "soft", "", "soft small", "bad-text"].map(name => made("span", "", name));
  node.append(dot, ...parts);
  return { node, change: item => {
    const left = item.ends_at === null ? null : item.ends_at - now();
    named(dot, "dot " + item.tone);
    const end = left === null ? "does not say when it ends" : left > 0 ? `ends in ${span(left)}` : `ended ${span(-left)} ago`;
    [item.name, left === null ? "" : clock(item.ends_at), end, item.file, item.trouble].forEach((text, index) => put(parts[index], text));
  } };
}

function drawCertificates(list) {
  kept(at("certificates"), list, item => item.name, certificate);
  at("certified").hidden = !list.length;
}

function drawServer(told) {
  const server = told.server, facts = [["Version", server.version], ["Runs", since(server.began_at)]];
  if (server.config_file) {
    facts.push(["Configuration", server.config_file],
      ["Changed", server.changed_at === null ? "the file is gone" : clock(server.changed_at)], ["Read", since(server.read_at)]);
  }
  if (server.reload) facts.push(["Last reload", `${server.reload.taken ? "taken" : "refused"} at ${clock(server.reload.at)}: ${server.reload.text}`]);
  if (server.at_restart.length) facts.push(["At a restart", server.at_restart.join(", ")]);
  const list = at("server");
  if (list.children.length !== 2 * facts.length) list.replaceChildren(...facts.flatMap(() => [made("dt"), made("dd")]));
  facts.flat().forEach((text, index) => put(list.children[index], text));
  put(at("about"), `${server.version} · up ${span(now() - server.began_at)}`);
  put(at("ready"), told.ready ? "Ready" : "Not ready");
  named(at("ready"), "pill " + (told.ready ? "good" : "bad"));
}

// --- news ---

function drawNews() {
  const routine = at("routine").checked, list = shown.news.filter(item => routine || !item.routine).slice(0, DRAWN);
  kept(at("news"), list, item => item.number, item => {
    const node = made("li");
    node.append(timed(item.at), made("span", "", "dot " + item.tone), made("span", item.text));
    return { node, change: () => {} };
  });
  at("silence").hidden = list.length > 0;
}

// --- rotate and revoke, behind a question ---

let pending = null;

function confirmed(what, row, opener) {
  pending = { what, row, opener };
  const verb = what === "rotate" ? "Rotate" : "Revoke", all = row.shared ? "" : " Every lease of its callers is meant, not this one alone.";
  put(at("ask-title"), `${verb} ${row.upstream} in ${row.stage}?`);
  put(at("ask-what"), (what === "rotate"
    ? "Another credential is fetched. The one in use is used until it is there, and revoked when requests on their way are done: none is lost."
    : "The credential in use is ended at Vault now. Requests are answered 503 until there is another.") + all);
  put(at("do"), `${verb} ${row.upstream}`);
  named(at("do"), what === "rotate" ? "" : "grave");
  put(at("ask-error"), "");
  at("reason").value = "";
  at("ask").showModal();
  at("reason").focus();
}

async function send(event) {
  event.preventDefault();
  const { what, row } = pending, reason = at("reason").value.trim();
  if (!reason) return put(at("ask-error"), "Say why.");
  at("do").disabled = true;
  try {
    const path = `upstreams/${encodeURIComponent(row.upstream)}/${what}?stage=${encodeURIComponent(row.stage)}`;
    const answer = await ask(path, {
      method: "POST", headers: { "X-Vaultauthz": "1", "Content-Type": "application/json" }, body: JSON.stringify({ reason }),
    });
    if (answer.status !== 202) throw new Error((await answer.json().catch(() => ({}))).error || `status ${answer.status}`);
    at("ask").close();
    say(`${what === "rotate" ? "Rotation" : "Revocation"} of ${row.upstream} in ${row.stage} is asked for; what comes of it is among the events.`);
    refresh();
  } catch (error) {
    put(at("ask-error"), `It was not taken: ${error.message}`);
  } finally {
    at("do").disabled = false;
  }
}

let saying = 0;

function say(text) {
  put(at("said"), text);
  clearTimeout(saying);
  saying = setTimeout(() => put(at("said"), ""), 8000);
}

// --- asking ---

function ask(path, options = {}) {
  const headers = { ...options.headers, ...(shown.token ? { Authorization: "Bearer " + shown.token } : {}) };
  return fetch(path, { ...options, headers, cache: "no-store", signal: AbortSignal.timeout(8000) });
}

async function refresh() {
  clearTimeout(timer);
  const turn = ++asking;
  const query = new URLSearchParams({ find: at("find").value.trim(), most: shown.most, after: shown.last });
  if (at("only").checked) query.set("failing", "1");
  const url = "overview?" + query;
  try {
    const answer = await ask(url, { headers: url === shown.url ? { "If-None-Match": shown.tag } : {} });
    if (turn !== asking) return; // another question has been asked meanwhile
    at("login").hidden = answer.status !== 401;
    if (answer.status === 401) {
      at("main").hidden = true;
      at("lost").hidden = !shown.token;
      put(at("lost"), "The server does not take this token.");
      put(at("ready"), "Locked");
      return;
    }
    if (answer.status !== 304 && !answer.ok) throw new Error(`status ${answer.status}`);
    const time = parseFloat(answer.headers.get("X-Vaultauthz-Now"));
    if (time) shown.skew = time - Date.now() / 1000;
    if (answer.status === 200) taken(await answer.json(), url, answer.headers.get("ETag"));
    at("lost").hidden = true;
    named(at("main"), "");
    put(at("when"), "Updated " + clock(now()));
    tick();
  } catch (error) {
    if (turn !== asking) return;
    put(at("ready"), "No answer");
    named(at("ready"), "pill bad");
    at("lost").hidden = false;
    put(at("lost"), `The server does not answer (${error.message}). What is shown is old.`);
    named(at("main"), "stale");
  }
  later();
}

function later() {
  clearTimeout(timer);
  if (!document.hidden && !shown.paused) timer = setTimeout(refresh, 1000 * (shown.told?.again_in || 2));
}

function taken(told, url, tag) {
  if (told.server.began_at !== shown.began) { // another process: its news begin again
    shown.news = [];
    if (shown.began && shown.last) Object.assign(shown, { last: 0, url: "" });
    shown.began = told.server.began_at;
  }
  shown.news = [...told.news.filter(item => item.number > (shown.news[0]?.number || 0)), ...shown.news].slice(0, NEWS);
  shown.last = shown.news[0]?.number || 0;
  Object.assign(shown, { told, url, tag });
  at("main").hidden = false;
  drawFailing(told);
  drawLeases(told);
  kept(at("stages"), told.stages, item => item.stage, stage);
  drawGateways(told.gateways);
  drawCertificates(told.certificates);
  drawServer(told);
  drawNews();
}

// Times go on between two answers, of what is on the screen.
const screen = new IntersectionObserver(entries => entries.forEach(entry => { entry.target.away = !entry.isIntersecting; }));

function tick() {
  if (!shown.told || document.hidden) return;
  for (const list of ["rows", "troubles", "stages", "gateways", "certificates"])
    for (const one of (at(list).kept || new Map()).values()) if (!one.node.away) one.change(one.item);
  drawServer(shown.told);
}

let typing = 0;
at("find").addEventListener("input", () => {
  clearTimeout(typing);
  shown.most = MORE;
  typing = setTimeout(refresh, 200);
});
at("only").addEventListener("change", () => { shown.most = MORE; refresh(); });
at("more").addEventListener("click", () => { shown.most = Math.min(MOST, shown.most + MORE); refresh(); });
at("routine").addEventListener("change", drawNews);
at("pause").addEventListener("click", () => {
  shown.paused = !shown.paused;
  at("pause").setAttribute("aria-pressed", shown.paused);
  put(at("pause"), shown.paused ? "Go on" : "Pause");
  if (!shown.paused) refresh(); else clearTimeout(timer);
});
at("login").addEventListener("submit", event => {
  event.preventDefault();
  shown.token = at("token").value.trim();
  at("token").value = "";
  refresh();
});
at("confirm").addEventListener("submit", send);
at("cancel").addEventListener("click", () => at("ask").close());
at("ask").addEventListener("close", () => pending?.opener.isConnected && pending.opener.focus());
document.addEventListener("visibilitychange", () => { if (!document.hidden && !shown.paused) refresh(); });
document.addEventListener("keydown", event => {
  const busy = event.target.closest("input, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey;
  if (event.key === "/" && !busy && !at("main").hidden) {
    event.preventDefault();
    at("find").focus();
  }
});
drawLegend();
setInterval(() => { if (!at("lost").hidden || shown.paused) return; tick(); }, 1000);
refresh();
