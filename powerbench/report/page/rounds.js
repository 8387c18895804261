// Rounds of candidates, of which some went on: their drawing, and a way through it round by round.
const rounds = (() => {
  const WIDTH = 480, HEIGHT = 226, LEFT = 52, RIGHT = 468, TOP = 22, BOTTOM = 190;

  function facts(round) {
    const total = round.weights.reduce((sum, w) => sum + w, 0), size = 1 / round.weights.reduce((sum, w) => sum + w * w, 0);
    const kept = [...new Set(round.kept)], shown = kept.slice(0, 3).map((i) => `${fixed(round.logp[i], 2)} (weight ${fixed(round.weights[i], 2)})`);
    const more = kept.length > shown.length ? ` and ${kept.length - shown.length} more` : "";
    const effective = Math.abs(total - 1) < 0.01 ? [`effective number ${fixed(size, 1)}`] : [];
    return [`block ${round.block + 1}`, `from position ${round.start}`, `${round.logp.length} candidates`, ...effective,
      `${kept.length} went on: log p ${shown.join(", ")}${more}`];
  }

  function draw(all) {
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chain", role: "img" },
      shape("title", {}, "Log-likelihoods of the candidates by round"));
    const n = all.length, width = (RIGHT - LEFT) / n, x = (i) => LEFT + (i + 0.5) * width;
    const finite = all.flatMap((round) => round.logp).filter((value) => value !== null);
    const low = finite.length ? Math.min(...finite) : 0, high = finite.length ? Math.max(...finite) : 0;
    const level = (value) => BOTTOM - 8 - (((value ?? low) - low) / (high - low || 1)) * (BOTTOM - TOP - 20);
    const label = (text, x, y, anchor) => svg.append(shape("text", { x, y, "text-anchor": anchor }, String(text)));
    const band = shape("rect", { class: "band", y: TOP, height: BOTTOM - TOP });
    svg.append(band, shape("path", { class: "frame", d: `M${LEFT} ${TOP}V${BOTTOM}H${RIGHT}` }));
    all.forEach((round, i) => {
      const spread = Math.min(width * 0.7, 60), kept = new Set(round.kept);
      round.logp.forEach((value, j) => {
        const at = x(i) + (round.logp.length > 1 ? (j / (round.logp.length - 1) - 0.5) * spread : 0);
        const size = 1.2 + 4 * Math.sqrt(Math.max(0, Math.min(1, round.weights[j])));
        svg.append(shape("circle", { class: kept.has(j) ? "accepted" : "rejected", cx: at, cy: level(value), r: size }));
      });
    });
    label(finite.length ? "log p (nats)" : "log p is not known", LEFT - 46, 12, "start");
    if (finite.length) label(fixed(high, 0), LEFT - 5, level(high) + 4, "end");
    if (high > low) label(fixed(low, 0), LEFT - 5, level(low) + 4, "end");
    label("1", x(0), BOTTOM + 15, "middle");
    if (n > 1) label(n, x(n - 1), BOTTOM + 15, "middle");
    label("round", (LEFT + RIGHT) / 2, BOTTOM + 30, "middle");
    const highlight = (i) => attach(band, { x: x(i) - Math.max(7, width) / 2, width: Math.max(7, width) }, []);
    const roundAt = (clientX) => {
      const box = svg.getBoundingClientRect();
      return Math.floor((((clientX - box.left) / box.width) * WIDTH - LEFT) / width);
    };
    return { svg, highlight, roundAt };
  }

  // `rows` are rounds as the page's data has them.
  return (rows) => {
    const all = rows.map(([block, start, logp, weights, kept]) => ({ block, start, logp, weights, kept }));
    const { svg, highlight, roundAt } = draw(all);
    const { show, controls, said } = stepper("round", all.map(facts), highlight);
    svg.onclick = (event) => show(roundAt(event.clientX));
    const key = "A dot is a candidate, the larger the more it weighed; filled: it went on; open: it did not.";
    return element("div", {}, svg, controls, said, element("p", { class: "key" }, key));
  };
})();
