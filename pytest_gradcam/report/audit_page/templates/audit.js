// Makes tables that can be read without it ones that can be sorted, found in, and folded. Text goes in as text.
(() => {
  const make = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const say = (text) => { document.getElementById("status").textContent = text; };
  const byNumber = (a, b) => (Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b) : a - b);
  const numberOf = (cell) => (cell.dataset.value ? Number(cell.dataset.value) : NaN);

  for (const table of document.querySelectorAll("table[data-fold]")) {
    const body = table.tBodies[0], heads = Array.from(table.tHead.rows[0].cells), fold = Number(table.dataset.fold);
    const first = Array.from(body.rows), name = table.dataset.name;
    const texts = new Map(first.map((row) => [row, row.cells[0].textContent.toLowerCase()]));
    let isWhole = first.length <= fold, query = "";

    const show = () => {
      let count = 0, found = 0;
      for (const row of body.rows) {
        const fits = texts.get(row).includes(query);
        found += fits;
        row.hidden = !fits || (!isWhole && count >= fold);
        count += !row.hidden;
      }
      return [count, found];
    };

    heads.forEach((head, column) => {
      const isText = head.dataset.sort === "text";
      const button = make("button", { type: "button", textContent: head.textContent });
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const sign = down ? -1 : 1;
        const order = (a, b) => {
          const [one, two] = [a.cells[column], b.cells[column]];
          if (isText) return sign * one.textContent.localeCompare(two.textContent, "en", { numeric: true });
          const [x, y] = [numberOf(one), numberOf(two)];
          return Number.isNaN(x) || Number.isNaN(y) ? byNumber(x, y) : sign * (x - y);
        };
        body.append(...Array.from(body.rows).sort(order));
        show();
        say(`${name} sorted by ${button.textContent}, ${down ? "descending" : "ascending"}`);
      });
      head.replaceChildren(button);
    });

    if (first.length > fold) {
      const input = make("input", { type: "search", autocomplete: "off", spellcheck: false });
      const toggle = make("button", { type: "button", textContent: `Show all ${first.length}` });
      const shown = make("span", { className: "quiet small" });
      const refresh = () => {
        const [count, found] = show();
        shown.textContent = count < found ? `${count} of ${found} are shown` : `${found} shown`;
        toggle.textContent = isWhole ? `Show ${fold} only` : `Show all ${first.length}`;
      };
      toggle.addEventListener("click", () => { isWhole = !isWhole; refresh(); });
      input.addEventListener("input", () => { query = input.value.trim().toLowerCase(); refresh(); say(shown.textContent); });
      table.parentElement.before(make("div", { className: "more" }, make("label", {}, `Find in ${name}`, input), toggle, shown));
      refresh();
    }
  }
  performance.mark("gradcam-ready");
})();
