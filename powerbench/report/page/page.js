// The browser of responses: filters, a sortable list in pages, details built when they are opened.
// The list needs the index alone; a chunk of details is parsed when one of its responses is opened or searched.
(() => {
  const PAGE = 50;
  const DISAGREE = "verifiers disagree";
  const SIGNS = { correct: "✓", win: "✓", wrong: "✗", loss: "✗", tie: "=", undecided: "?", "not scored": "·" };
  const parsed = (id) => JSON.parse(document.getElementById(id).textContent);
  const { runs, problems, responses, perChunk } = parsed("index");
  const chunks = [];
  const list = document.getElementById("list");
  const filters = document.getElementById("filters");

  const COLUMNS = [
    { name: "score", value: (r) => r.score },
    { name: "problem", value: (r) => r.problem, text: (r) => problems[r.problem] },
    { name: "model", value: (r) => runs[r.run].model },
    { name: "sampler", value: (r) => r.run, text: (r) => runs[r.run].sampler },
    { name: "replicate", label: "rep.", value: (r) => r.replicate, number: true },
    { name: "tokens", value: (r) => r.tokens, number: true },
    { name: "loglik", label: "log p / token", value: (r) => r.logpPerToken, digits: 3, number: true },
    { name: "confidence", value: (r) => r.confidence, digits: 3, number: true },
    { name: "accepted-share", label: "accepted", value: (r) => r.acceptance, digits: 2, number: true },
    { name: "excerpt", label: "response", value: (r) => r.excerpt },
  ];
  const state = { column: 1, down: false, page: 0, candidates: [], shown: [], searching: null, open: null, detail: null };

  responses.forEach((r, i) => { r.place = i; });
  const chunkOf = (r) => Math.floor(r.place / perChunk);

  function details(r) {
    const chunk = chunks[chunkOf(r)] ??= parsed(`chunk-${chunkOf(r)}`);
    return { ...chunk.responses[r.place % perChunk], ...chunk.problems[r.problem] };
  }

  function address(r) {
    const run = runs[r.run];
    const parts = [run.task, run.model, run.sampler, problems[r.problem], r.replicate];
    return "#response/" + parts.map((part) => encodeURIComponent(part)).join("/");
  }

  // ---- choosing what is listed

  function matches(r, { task, model, sampler, score }) {
    const run = runs[r.run];
    return (!task || run.task === task) && (!model || run.model === model) && (!sampler || run.sampler === sampler)
      && (!score || (score === DISAGREE ? r.disputed : r.score === score));
  }

  function contains(r, wanted) {
    const { text, answer, prompt, gold } = details(r);
    return [text, answer ?? "", problems[r.problem], prompt, gold].some((s) => s.toLowerCase().includes(wanted));
  }

  function choose() {
    const key = COLUMNS[state.column].value, sign = state.down ? -1 : 1, wanted = Object.fromEntries(new FormData(filters));
    state.candidates = responses.filter((r) => matches(r, wanted)).map((r) => [key(r), r]).sort(([a, r], [b, s]) => {
      if (a === null || b === null) return (a === null) - (b === null) || r.place - s.place;
      return sign * (a < b ? -1 : a > b ? 1 : 0) || r.place - s.place;
    }).map(([, r]) => r);
    state.page = 0;
    search();
  }

  // The texts of chunks that have been parsed are searched at once; the others follow one by one, so that
  // the page answers meanwhile.
  function search() {
    clearTimeout(state.searching);
    const wanted = filters.elements.text.value.trim().toLowerCase();
    const unread = new Set(wanted ? state.candidates.map(chunkOf).filter((chunk) => !chunks[chunk]) : []);
    const found = new Set(state.candidates.filter((r) => !wanted || (!unread.has(chunkOf(r)) && contains(r, wanted))));
    const next = () => {
      const [chunk] = unread;
      unread.delete(chunk);
      state.candidates.filter((r) => chunkOf(r) === chunk && contains(r, wanted)).forEach((r) => found.add(r));
      const before = visible();
      update();
      const after = visible();
      if (after.length === before.length && after.every((r, i) => r === before[i])) count(); else render();
    };
    const update = () => {
      state.shown = state.candidates.filter((r) => found.has(r));
      state.searching = unread.size ? setTimeout(next) : null;
    };
    update();
    render();
  }

  // ---- the list

  const visible = () => state.shown.slice(state.page * PAGE, (state.page + 1) * PAGE);

  const headings = COLUMNS.map((column, i) => {
    const button = element("button", { type: "button" });
    button.onclick = () => {
      state.down = i === state.column && !state.down;
      state.column = i;
      choose();
    };
    return element("th", { scope: "col", class: column.name + (column.number ? " number" : "") }, button);
  });

  function cell(column, r) {
    const td = element("td", { class: column.name + (column.number ? " number" : "") });
    if (column.name === "score") {
      td.append(element("button", { class: "toggle " + r.score, type: "button", "aria-expanded": r === state.open },
        SIGNS[r.score], element("span", { class: "word" }, " " + r.score)));
    } else if (column.digits) {
      td.append(fixed(column.value(r), column.digits));
    } else {
      td.append((column.text ?? column.value)(r));
    }
    if (column.name === "problem") td.title = runs[r.run].task + " · " + problems[r.problem];
    return td;
  }

  function render() {
    headings.forEach((th, i) => {
      const arrow = i === state.column ? (state.down ? " ↓" : " ↑") : "";
      th.firstChild.textContent = (COLUMNS[i].label ?? COLUMNS[i].name) + arrow;
      if (arrow) th.setAttribute("aria-sort", state.down ? "descending" : "ascending"); else th.removeAttribute("aria-sort");
    });
    const focused = document.activeElement;
    list.tBodies[0].replaceChildren(...visible().flatMap((r) => {
      const row = element("tr", { class: "response" + (r === state.open ? " open" : "") }, ...COLUMNS.map((c) => cell(c, r)));
      row.onclick = () => toggle(r);
      return r === state.open ? [row, state.detail] : [row];
    }));
    if (list.contains(focused)) focused.focus({ preventScroll: true });
    count();
  }

  function count() {
    const start = state.page * PAGE, total = state.shown.length, some = (x) => x.toLocaleString("en");
    const listed = total && `${some(start + 1)} to ${some(Math.min(start + PAGE, total))} of ${some(total)}`;
    document.getElementById("count").textContent = state.searching !== null
      ? (listed ? `${listed} so far, searching …` : "searching …")
      : listed || "no response matches";
    document.getElementById("previous").disabled = state.page === 0;
    document.getElementById("next").disabled = start + PAGE >= total;
  }

  function open(r) {
    state.open = r;
    state.detail = r && detailRow(r);
  }

  function toggle(r) {
    open(state.open === r ? null : r);
    history.replaceState(null, "", state.open ? address(r) : "#responses");
    render();
    list.querySelectorAll(".toggle")[visible().indexOf(r)].focus({ preventScroll: true });
  }

  function turn(pages) {
    state.page += pages;
    render();
    list.scrollIntoView();
  }

  // ---- one response

  function detailRow(r) {
    const d = details(r), run = runs[r.run];
    const said = (score, reason = "") => element("span", { class: score }, `${SIGNS[score]} ${score}${reason}`);
    const texts = element("div", {},
      element("h3", {}, "prompt"), element("pre", { class: "prompt" }, d.prompt),
      ...(d.reasoning === null ? [] : [element("h3", {}, "reasoning"), element("pre", { class: "text" }, d.reasoning)]),
      element("h3", {}, "response"), element("pre", { class: "text" }, d.text || "(empty)"));
    const facts = [
      ["score", said(r.score)], ["reason", d.reason], ["by", d.by],
      ...d.others.map((other) => [other.verifier, said(other.score, ` (${other.reason})`)]),
      ["preference", d.preference === null ? "" : fixed(d.preference, 3)],
      ["run", `${run.task} · ${run.model} · ${run.sampler} · replicate ${r.replicate}`],
      ["length", `${r.tokens} tokens after a prompt of ${d.promptTokens}, ended by ${d.finish_reason}`],
      ["log p", `${fixed(d.logp, 1)} nats, ${fixed(r.logpPerToken, 3)} a token`],
      ["confidence", `${fixed(r.confidence, 3)} nats a token`],
      ["refused", d.refusal ?? ""],
      ["cost", `${d.decoded} tokens decoded${d.passes === null ? "" : ` in ${d.passes} passes`}, ${d.prefilled} prefilled, ${fixed(d.seconds, 1)} s`],
      ["dollars", d.dollars === null ? "" : fixed(d.dollars, 4)],
    ];
    const side = element("div", {}, element("h3", {}, "score"),
      element("dl", {}, ...facts.filter(([, value]) => value !== "").flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
      element("h3", {}, "answer"), element("pre", { class: "answer" }, d.answer ?? "(none)"),
      element("h3", {}, "gold"), element("pre", { class: "answer" }, d.gold));
    if (d.steps.length) side.append(element("h3", {}, "chain"), chain(d.steps, r.tokens, d.logp));
    if (d.rounds.length) side.append(element("h3", {}, "candidates"), rounds(d.rounds));
    return element("tr", {}, element("td", { class: "detail", colspan: COLUMNS.length }, element("div", {}, texts, side)));
  }

  // ---- start

  function openAddressed() {
    const { hash } = location, r = hash.startsWith("#response/") && responses.find((r) => address(r) === hash);
    if (!r) return false;
    open(r);
    if (!state.shown.includes(r)) {
      filters.reset();
      choose();
    }
    state.page = Math.floor(state.shown.indexOf(r) / PAGE);
    render();
    list.querySelector(".open").scrollIntoView();
    return true;
  }

  const options = (name, values) => filters.elements[name].append(new Option("all", ""), ...[...new Set(values)].map((v) => new Option(v, v)));
  options("task", runs.map((run) => run.task));
  options("model", runs.map((run) => run.model));
  options("sampler", runs.map((run) => run.sampler));
  const scores = Object.keys(SIGNS).filter((name) => responses.some((r) => r.score === name));
  options("score", responses.some((r) => r.disputed) ? [...scores, DISAGREE] : scores);
  list.tHead.rows[0].append(...headings);
  let waiting;
  filters.oninput = () => { clearTimeout(waiting); waiting = setTimeout(choose, 120); };
  filters.onsubmit = (event) => event.preventDefault();
  document.getElementById("previous").onclick = () => turn(-1);
  document.getElementById("next").onclick = () => turn(1);
  window.onhashchange = openAddressed;
  if (!openAddressed()) choose();
})();
