
(function () {
  "use strict";
  // The page is complete without this script: every host is in the table, worst first. The script adds filters.
  const byId = (id) => document.getElementById(id);
  const table = byId("table"), body = table.tBodies[0], find = byId("find"), only = byId("only"), sorter = byId("sort");
  const rows = Array.from(body.rows, (row, place) => ({
    row: row, place: place, group: "g" + row.dataset.g, ok: row.className === "ok", text: row.textContent.toLowerCase(),
  }));
  const heads = Array.from(table.tHead.rows[0].cells);
  const collator = new Intl.Collator("en", { numeric: true });

  function sift() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean), wanted = only.value;
    let shown = 0;
    for (const each of rows) {
      const fits = (!wanted || each.group === wanted || (wanted === "bad" && !each.ok))
        && words.every((word) => each.text.includes(word));
      each.row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    byId("shown").textContent = shown + " of " + rows.length + " shown";
    byId("none").hidden = shown > 0;
  }

  function value(each, column) {
    if (column === 1) return each.group; // outcomes from bad to good, as the causes are
    const cell = each.row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : cell.dataset.v;
  }

  // column -1: as it was written, worst first
  function sort(column, down) {
    const sorted = column < 0 ? rows.slice() : rows.slice().sort((one, other) => {
      const order = collator.compare(value(one, column), value(other, column));
      return (down ? -order : order) || one.place - other.place;
    });
    body.append(...sorted.map((each) => each.row));
    heads.forEach((head, number) => {
      head.setAttribute("aria-sort", number !== column ? "none" : down ? "descending" : "ascending");
    });
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
  });
  find.addEventListener("input", sift);
  only.addEventListener("change", sift);
  sorter.addEventListener("change", () => sort(sorter.value === "" ? -1 : Number(sorter.value), sorter.value === "4"));
  byId("unfold").addEventListener("click", (event) => {
    const open = event.target.textContent === "open all steps";
    for (const each of rows) {
      const details = each.row.querySelector("details");
      if (details !== null && !each.row.hidden) details.open = open;
    }
    event.target.textContent = open ? "close all steps" : "open all steps";
  });
  for (const button of document.querySelectorAll("button.only")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      only.value = button.dataset.only;
      find.value = "";
      sift();
      byId("hosts").scrollIntoView();
      only.focus({ preventScroll: true });
    });
  }
  byId("controls").hidden = false;
  sift();
})();
