// Makes a page that can be read without it one that can be searched. Text goes in as text, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // A page in a sandbox has no storage, and says so by throwing.
  const stored = (area, key) => { try { return window[area].getItem(key); } catch { return null; } };
  const store = (area, key, value) => { try { window[area].setItem(key, value); } catch { /* not kept, then */ } };

  const cards = Array.from(document.querySelectorAll(".card"), (element, place) => ({
    element,
    place,
    item: element.parentElement,
    summary: element.firstElementChild,
    category: element.dataset.category,
    assertion: element.dataset.assertion,
    model: element.dataset.model,
    markers: JSON.parse(element.dataset.markers),
    value: element.dataset.value === "" ? NaN : Number(element.dataset.value),
    seconds: element.dataset.seconds === "" ? NaN : Number(element.dataset.seconds),
    baseline: element.dataset.baseline ? JSON.parse(element.dataset.baseline) : null,
    sources: new Map(),
    near: false,
    text: null,
  }));
  const byElement = new Map(cards.map((card) => [card.element, card]));
  const nameOf = (card) => card.element.querySelector(".nodeid").textContent;

  // ---- what is shown, as the address says it -------------------------------------------------------------------

  const OUTCOMES = ["failed", "inconclusive", "expected", "passed", "waiting"];
  const FACETS = ["assertion", "model", "marker"];
  const SORTS = {
    worst: (a, b) => a.place - b.place,
    name: (a, b) => (nameOf(a) < nameOf(b) ? -1 : nameOf(a) > nameOf(b) ? 1 : a.place - b.place),
    value: (a, b) => byNumber(a.value, b.value) || a.place - b.place,
    time: (a, b) => byNumber(-a.seconds, -b.seconds) || a.place - b.place,
  };
  const byNumber = (a, b) => (Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b) : a - b);
  let state = {};
  let sorted = "worst";

  const read = () => {
    let asked;
    try { asked = new URLSearchParams(location.hash.slice(1)); } catch { asked = new URLSearchParams(); }
    const one = (name, known, otherwise) => (known.includes(asked.get(name)) ? asked.get(name) : otherwise);
    state = {
      q: asked.get("q") ?? "",
      outcome: new Set((asked.get("outcome") ?? "").split(",").filter((each) => OUTCOMES.includes(each))),
      sort: one("sort", Object.keys(SORTS), "worst"),
      map: one("map", Object.keys(MAPS), "jet"),
      card: one("card", cards.map((card) => card.element.id), ""),
    };
    for (const facet of FACETS) state[facet] = one(facet, Array.from($(facet).options, (each) => each.value), "");
  };

  const write = () => {
    const said = new URLSearchParams();
    for (const name of ["q", ...FACETS]) if (state[name]) said.set(name, state[name]);
    if (state.outcome.size) said.set("outcome", [...state.outcome].join(","));
    if (state.sort !== "worst") said.set("sort", state.sort);
    if (state.map !== "jet") said.set("map", state.map);
    if (state.card) said.set("card", state.card);
    const hash = `#${said}`;
    if (hash === location.hash || (hash === "#" && !location.hash)) return;
    try { history.replaceState(null, "", hash === "#" ? location.href.split("#")[0] : hash); } catch { /* a sandbox */ }
  };

  const textOf = (card) => {
    card.text ??= Array.from(
      card.element.querySelectorAll(".message, .nodeid, .tag, .badge:not(.decision), dt, dd"),
      (each) => each.textContent,
    ).join("\n").toLowerCase();
    return card.text;
  };

  const matches = (card, words) => {
    const { outcome } = state;
    const wanted = [...outcome].filter((each) => each !== "waiting");
    return (!wanted.length || outcome.has(card.category))
      && (!outcome.has("waiting") || card.baseline !== null)
      && (!state.assertion || state.assertion === card.assertion)
      && (!state.model || state.model === card.model)
      && (!state.marker || card.markers.includes(state.marker))
      && words.every((word) => textOf(card).includes(word));
  };

  const show = () => {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const card of cards) {
      card.item.hidden = !matches(card, words);
      count += !card.item.hidden;
    }
    if (state.sort !== sorted) {
      sorted = state.sort;
      $("cards").append(...[...cards].sort(SORTS[sorted]).map((card) => card.item));
    }
    for (const button of document.querySelectorAll(".count")) {
      button.setAttribute("aria-pressed", String(state.outcome.has(button.dataset.count)));
    }
    for (const name of ["sort", "map", ...FACETS]) $(name).value = state[name];
    if ($("q").value !== state.q) $("q").value = state.q;
    $("nothing").hidden = count > 0 || !cards.length;
    say(count === cards.length ? `${count} shown` : `${count} of ${cards.length} shown`);
  };

  const say = (text) => { if ($("status").textContent !== text) $("status").textContent = text; };
  const change = (values) => { Object.assign(state, values); write(); show(); };

  // ---- pictures: made when a card comes near ---------------------------------------------------------------------

  const SOURCE = /src="(data:image\/(?:webp|jpeg|png);base64,[A-Za-z0-9+/]+={0,2})"/;
  const ramp = (stops) => (t) => {
    const at = t * (stops.length / 6 - 1), low = Math.min(Math.floor(at), stops.length / 6 - 2);
    return [0, 2, 4].map((byte) => {
      const [a, b] = [low, low + 1].map((stop) => parseInt(stops.slice(6 * stop + byte, 6 * stop + byte + 2), 16));
      return a + (b - a) * (at - low);
    });
  };
  const MAPS = {
    jet: (t) => [3, 2, 1].map((peak) => 255 * Math.min(Math.max(1.5 - Math.abs(4 * t - peak), 0), 1)),
    viridis: ramp("440154470d6048186a482374472d7b4537814240863e49893b528b375b8d33638d2f6b8e2c728e297a8e26828e23898e21918c1f978b1f9f8821a68527ad8131b57b3dbc744cc26c5cc8636ece5881d34d95d840aadc32c0df25d5e21aeae51afde725"),
    cividis: ramp("00224e00285b002e6a0533711a386f273e6e32436d3b496c434e6c4b546c535a6d5a5f6e61656f686a716f70737676767d7c788381798b8778928d789a9376a29975aaa073b3a670bbad6dc3b369ccba64d4c15fddc858e6d051efd748f8df3cfee838"),
  };
  const tables = {};
  const tableOf = (name) => (tables[name] ??= Array.from({ length: 256 }, (_, level) => MAPS[name](level / 255)));

  const sourceOf = (card, name) => {
    if (!card.sources.has(name)) {
      const holder = card.element.querySelector(`.pic[data-pic="${name}"] noscript`);
      card.sources.set(name, SOURCE.exec(holder?.textContent ?? "")?.[1] ?? null);
    }
    return card.sources.get(name);
  };
  const altOf = (card, name) =>
    card.element.querySelector(`[data-pic="${name}"], [data-say="${name}"]`)?.dataset.alt ?? "";
  const gridOf = (text) => {
    if (!text) return null;
    const [rows, columns, data] = text.split(" ");
    const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
    return bytes.length === rows * columns ? { rows: Number(rows), columns: Number(columns), bytes } : null;
  };
  const loaded = async (source) => {
    const image = new Image();
    image.src = source;
    await image.decode();
    return image;
  };

  // Bilinear between the centres of the cells, as the map itself was resized.
  const heat = ({ rows, columns, bytes }, width, height) => {
    const axis = (length, cells) => Array.from({ length }, (_, i) => {
      const at = Math.min(Math.max((i + 0.5) * cells / length - 0.5, 0), cells - 1), low = Math.floor(at);
      return [low, Math.min(low + 1, cells - 1), at - low];
    });
    const across = axis(width, columns), levels = new Uint8Array(width * height);
    axis(height, rows).forEach(([top, bottom, down], y) => across.forEach(([left, right, along], x) => {
      const cell = (row, column) => bytes[row * columns + column];
      const upper = cell(top, left) + (cell(top, right) - cell(top, left)) * along;
      const lower = cell(bottom, left) + (cell(bottom, right) - cell(bottom, left)) * along;
      levels[y * width + x] = Math.round(upper + (lower - upper) * down);
    }));
    return levels;
  };

  const paint = (canvas, image, grid, outline, side, alone = false) => {
    const scale = side / Math.max(image.naturalWidth, image.naturalHeight);
    const width = canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
    const height = canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height), table = tableOf(state.map), weight = alone ? 1 : 0.5;
    heat(grid, width, height).forEach((level, i) => table[level].forEach((value, channel) => {
      pixels.data[4 * i + channel] = weight * value + (1 - weight) * pixels.data[4 * i + channel];
    }));
    context.putImageData(pixels, 0, 0);
    if (!outline) return;
    const path = new Path2D();
    path.addPath(new Path2D(outline), new DOMMatrix([width / 100, 0, 0, height / 100, 0, 0]));
    context.lineJoin = "round";
    for (const [colour, line] of [["#000", side / 60], ["#fff", side / 130]]) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.stroke(path);
    }
  };

  const thumb = async (card) => {
    const holder = card.summary.querySelector(".thumb .pic"), source = sourceOf(card, "overlay");
    if (!holder || !source || card.drawn === state.map) return;
    card.drawn = state.map;
    const grid = gridOf(card.element.dataset.grid), seen = sourceOf(card, "seen");
    // The message beside it tells what it shows, and the opened card has it again with words of its own.
    let picture = make("img", { alt: "", decoding: "async", src: source });
    if (state.map !== "jet" && grid && seen) {
      picture = make("canvas");
      picture.setAttribute("aria-hidden", "true");
      const image = await loaded(seen).catch(() => null);
      if (!image || card.drawn !== state.map) return;
      paint(picture, image, grid, card.element.dataset.outline, 176);
    }
    holder.querySelector("img, canvas")?.remove();
    holder.append(picture);
  };

  const panel = (caption, ...pictures) => make("figure", { className: "panel" }, ...pictures, make("figcaption", {}, ...caption));
  const painted = (card, image, grid, name, options = {}) => {
    const canvas = make("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", altOf(card, name));
    paint(canvas, image, gridOf(card.element.dataset[grid]), options.alone ? "" : card.element.dataset.outline, 448, options.alone);
    return canvas;
  };
  const legend = () => {
    const bar = make("canvas", { width: 256, height: 1 }), context = bar.getContext("2d");
    tableOf(state.map).forEach((colour, level) => {
      context.fillStyle = `rgb(${colour.map(Math.round).join(" ")})`;
      context.fillRect(level, 0, 1, 1);
    });
    bar.setAttribute("aria-hidden", "true");
    return make("span", { className: "legend" }, "map, 0", bar, "1");
  };

  const wipe = (card, before, now, titles) => {
    const stage = make("div", { className: "wipe" }, before, make("div", { className: "over" }, now));
    now.setAttribute("aria-hidden", "true");
    before.setAttribute("aria-label", `${titles[0]} at the left and ${titles[1]} at the right of the slider's place`);
    const slider = make("input", { type: "range", min: "0", max: "100", value: card.at ?? "50" });
    slider.setAttribute("aria-label", `Wipe between ${titles[0]} and ${titles[1]}`);
    const move = () => {
      card.at = slider.value;
      stage.style.setProperty("--at", `${slider.value}%`);
      slider.setAttribute("aria-valuetext", `${slider.value}% ${titles[0]}`);
    };
    slider.addEventListener("input", move);
    move();
    return panel([make("span", { className: "slider" }, titles[0], slider, titles[1])], stage);
  };

  const dress = async (card) => {
    const panels = card.element.querySelector(".panels"), seen = sourceOf(card, "seen"), { dataset } = card.element;
    if (!panels || !seen || card.dressed === state.map) return;
    card.dressed = state.map;
    for (const name of ["seen", "overlay", "before", "difference", "second"]) sourceOf(card, name);
    const alts = Object.fromEntries(["seen", "difference"].map((name) => [name, altOf(card, name)]));
    const image = await loaded(seen).catch(() => null);
    if (!image || card.dressed !== state.map || !gridOf(dataset.grid)) return;
    const picture = (name) => make("img", { src: sourceOf(card, name), alt: alts[name], decoding: "async" });
    const titles = dataset.titles ? JSON.parse(dataset.titles) : [];
    const made = [panel(["what the model saw"], picture("seen"))];
    if (gridOf(dataset.gridBefore)) {
      const [before, now] = [titles[0] || "baseline", titles[1] || "current"];
      const pair = () => [painted(card, image, "gridBefore", "before"), painted(card, image, "grid", "now")];
      const [left, right] = pair();
      panels.classList.add("five");
      made.push(panel([before], left), panel([now], right));
      if (sourceOf(card, "difference")) {
        const words = [make("span", { className: "gained", textContent: "gained" }), " ", make("span", { className: "lost", textContent: "lost" })];
        made.push(panel(["difference: ", ...words], picture("difference")));
      }
      made.push(wipe(card, ...pair(), [before, now]));
    } else {
      made.push(panel([legend()], painted(card, image, "grid", "cam", { alone: true })));
      made.push(panel([titles[0] || (dataset.outline ? "map over it, and the region" : "map over it")], painted(card, image, "grid", "overlay")));
      if (sourceOf(card, "second")) {
        made.push(panel([titles[1] || "second"], make("img", { src: sourceOf(card, "second"), alt: altOf(card, "second"), decoding: "async" })));
      }
    }
    const kept = panels.querySelectorAll("[data-say], .pic[data-pic]");
    panels.replaceChildren(...made, ...Array.from(kept, (each) => Object.assign(each, { hidden: true })));
  };

  const recolour = () => {
    for (const card of cards) {
      if (card.near) thumb(card);
      if (card.element.open) dress(card);
    }
  };
  const watcher = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      const card = byElement.get(target.firstElementChild);
      card.near = isIntersecting;
      if (isIntersecting) thumb(card);
    }
  }, { rootMargin: "800px 0px" });

  // ---- decisions on baselines ------------------------------------------------------------------------------------

  const KEY = `gradcam-decisions-${document.body.dataset.key}`;
  const waiting = new Set(cards.map((card) => card.baseline).filter((id) => id !== null));
  const decisions = new Map();
  try {
    for (const [id, what] of JSON.parse(stored("sessionStorage", KEY) ?? "[]")) {
      if (waiting.has(id) && (what === "approved" || what === "rejected")) decisions.set(id, what);
    }
  } catch { /* somebody else's */ }

  const decided = (what) => [...waiting].filter((id) => decisions.get(id) === what);
  const asFile = () => `${JSON.stringify({ schema: 1, approved: decided("approved"), rejected: decided("rejected") }, null, 1)}\n`;
  const tally = () => {
    for (const card of cards) {
      if (card.baseline === null) continue;
      const what = decisions.get(card.baseline), badge = card.summary.querySelector(".decision");
      badge.hidden = !what;
      badge.textContent = what ?? "";
      badge.classList.toggle("no", what === "rejected");
      card.summary.querySelector(".waiting").hidden = Boolean(what);
      card.element.querySelector(".approve").setAttribute("aria-pressed", String(what === "approved"));
      card.element.querySelector(".reject").setAttribute("aria-pressed", String(what === "rejected"));
    }
    const left = waiting.size - decisions.size;
    $("ledger").hidden = !decisions.size;
    $("tally").textContent = `${decided("approved").length} approved, ${decided("rejected").length} rejected, ${left} left`;
  };
  const decide = (card, what) => {
    if (!card) return;
    if (card.baseline === null) { say("Nothing waits to be approved here."); return; }
    if (decisions.get(card.baseline) === what) decisions.delete(card.baseline);
    else decisions.set(card.baseline, what);
    store("sessionStorage", KEY, JSON.stringify([...decisions]));
    tally();
    say(`${decisions.get(card.baseline) ?? "undecided"}: ${nameOf(card)}`);
  };
  const save = () => {
    const address = URL.createObjectURL(new Blob([asFile()], { type: "application/json" }));
    make("a", { href: address, download: "approvals.json" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  };
  const copy = async (text, button) => {
    const name = button.dataset.name ??= button.textContent;
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // no clipboard in a sandbox: a field that is selected
      const field = make("textarea", { value: text, className: "sr-only" });
      (button.closest("dialog") ?? document.body).append(field);
      field.select();
      done = document.execCommand("copy");
      field.remove();
      button.focus();
    }
    button.textContent = done ? "Copied" : "Cannot copy";
    setTimeout(() => { button.textContent = name; }, 1500);
  };

  // ---- hands ---------------------------------------------------------------------------------------------------

  let current = null;
  const shown = () => Array.from($("cards").children, (item) => byElement.get(item.firstElementChild)).filter((card) => !card.item.hidden);
  const go = (step) => {
    const list = shown();
    if (!list.length) return;
    const at = list.indexOf(current);
    const next = list[at < 0 ? 0 : Math.min(Math.max(at + step, 0), list.length - 1)];
    next.summary.focus();
    current = next;
  };
  let single = stored("localStorage", "gradcam-keys") !== "off";
  const openHelp = () => { $("single").checked = single; $("keys").showModal(); };
  const KEYS = {
    j: () => go(1),
    k: () => go(-1),
    a: () => decide(current, "approved"),
    r: () => decide(current, "rejected"),
    "/": () => { $("q").focus(); $("q").select(); },
    "?": openHelp,
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    const { target } = event;
    if (event.key === "Escape" && target === $("q")) {
      event.preventDefault();
      (current && !current.item.hidden ? current.summary : $("verdicts")).focus();
      return;
    }
    const types = target.matches("input:not([type=range], [type=checkbox]), select, textarea");
    if (types || !single || !Object.hasOwn(KEYS, event.key)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  document.addEventListener("focusin", ({ target }) => {
    const card = byElement.get(target.closest(".card"));
    if (card) current = card;
  });
  $("cards").addEventListener("click", ({ target }) => {
    const card = byElement.get(target.closest(".card")), button = target.closest("button");
    if (card) current = card;
    if (!card || !button) return;
    if (button.matches(".copy")) copy(button.previousElementSibling.textContent, button);
    if (button.matches(".approve")) decide(card, "approved");
    if (button.matches(".reject")) decide(card, "rejected");
  });
  $("cards").addEventListener("toggle", ({ target }) => {
    const card = byElement.get(target);
    if (!card) return;
    if (target.open) dress(card);
    if (target.open) state.card = target.id;
    else if (state.card === target.id) state.card = "";
    write();
  }, true);

  for (const button of document.querySelectorAll(".count")) {
    button.addEventListener("click", () => {
      const outcome = new Set(state.outcome), name = button.dataset.count;
      if (!outcome.delete(name)) outcome.add(name);
      change({ outcome });
    });
  }
  $("q").addEventListener("input", () => change({ q: $("q").value }));
  for (const name of ["sort", ...FACETS]) $(name).addEventListener("change", () => change({ [name]: $(name).value }));
  $("map").addEventListener("change", () => { change({ map: $("map").value }); recolour(); });
  $("clear").addEventListener("click", () => {
    change({ q: "", outcome: new Set(), assertion: "", model: "", marker: "" });
    $("verdicts").focus();
  });
  $("help").addEventListener("click", openHelp);
  $("close-keys").addEventListener("click", () => $("keys").close());
  $("single").addEventListener("change", () => {
    single = $("single").checked;
    store("localStorage", "gradcam-keys", single ? "on" : "off");
  });
  $("save").addEventListener("click", save);
  $("copy-decisions").addEventListener("click", () => copy(asFile(), $("copy-decisions")));
  $("forget").addEventListener("click", () => {
    decisions.clear();
    store("sessionStorage", KEY, "[]");
    tally();
    $("verdicts").focus();
  });
  // The address says what is shown, and nothing else: a plain link would write over it.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("verdicts").focus();
  });

  // ---- the first time ------------------------------------------------------------------------------------------

  const options = (id, values) => {
    $(id).append(...[...new Set(values)].filter(Boolean).sort().map((value) => make("option", { value, textContent: value })));
    $(id).closest("label").hidden = $(id).options.length < (id === "marker" ? 2 : 3);
  };
  options("assertion", cards.map((card) => card.assertion));
  options("model", cards.map((card) => card.model));
  options("marker", cards.flatMap((card) => card.markers));
  for (const control of document.querySelectorAll(".tools :disabled, .count:disabled")) control.disabled = false;

  const open = () => {
    read();
    show();
    recolour();
    const card = cards.find(({ element }) => element.id === state.card);
    if (!card || card.element.open) return;
    card.element.open = true;
    card.item.scrollIntoView({ block: "start" });
    current = card;
  };
  addEventListener("hashchange", open);
  open();
  tally();
  for (const card of cards) watcher.observe(card.item);
  performance.mark("gradcam-ready");
})();
