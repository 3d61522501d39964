"use strict";
/* Tables of three rows or more sort: a click on a head puts its column in ascending order, the next one in descending order, and the third
   puts the rows as they were. Figures are compared by their worth, whatever their unit, and what is none comes last. A table stays as it
   is where its rows have units of their own (class still), or a row without a head goes on with the one above. */
(() => {
  const TIMES = { ns: 1e-9, "µs": 1e-6, us: 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600, d: 86400 };
  const PREFIXES = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
  const MEASURED = /^(B|b|bit|bps|W|Wh|J|Hz|FLOP|g|gCO2e|tok|tokens)?$/;
  const FIGURE = /^[\s*+<>≤≥≈~×±]*(?:up to )?([-−]?)\$?(\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)(?: ± \$?[\d.,]+)?\s*(%|[a-zµ]\w*)?(?=$|[\s,;:/()%]|\.\s)/i;
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
  const words = new Intl.Collator("en", { numeric: true });

  function scale(unit) {
    if (unit === "%" || unit === "pp") return 0.01;
    if (Object.hasOwn(TIMES, unit)) return TIMES[unit];
    return unit[0] in PREFIXES && MEASURED.test(unit.slice(1)) ? PREFIXES[unit[0]] : 1;
  }

  /* What a text is worth; nothing where it is no figure. */
  function worth(text) {
    const found = FIGURE.exec(text);
    if (!found) return null;
    return (found[1] ? -1 : 1) * Number(found[2].replaceAll(",", "")) * scale(found[3] || "");
  }

  function sorted(rows, column, figures, down) {
    const keyed = rows.map((row) => {
      const text = row.cells[column].textContent.trim();
      const value = worth(text);
      const blank = text === "" || /^[–-](?!\$?\d)/.test(text);
      return { row, text, value, rank: blank ? 2 : value === null ? 1 : 0 };
    });
    const told = figures || keyed.every((one) => one.rank !== 1);
    const compare = (a, b) => (told && a.rank === 0 ? a.value - b.value : words.compare(a.text, b.text));
    const rank = (one) => (told || one.rank === 2 ? one.rank : 0);
    return keyed.sort((a, b) => rank(a) - rank(b) || (down ? compare(b, a) : compare(a, b))).map((one) => one.row);
  }

  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const goesOn = rows.some((row) => !row.cells[0].textContent.trim());
    if (rows.length < 3 || goesOn || table.classList.contains("still")) continue;
    table.classList.add("sorts");
    const heads = [...[...table.tHead.rows].at(-1).cells];
    heads.forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const order = NEXT[head.getAttribute("aria-sort") || "none"];
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (order !== "none") head.setAttribute("aria-sort", order);
        const figures = head.classList.contains("n");
        body.append(...(order === "none" ? rows : sorted(rows, column, figures, order === "descending")));
      });
    });
  }
})();
