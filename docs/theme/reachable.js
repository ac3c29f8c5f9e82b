// What the theme leaves out for keyboards and screen readers: a name for its search and for its buttons beside code, and a
// way to scroll wide tables.
window.addEventListener("load", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  const mend = () => {
    document.querySelectorAll(".md-code__nav").forEach((nav, place) => nav.setAttribute("aria-label", `Code ${place + 1}`));
    document.querySelectorAll(".md-typeset__scrollwrap").forEach((table) => table.setAttribute("tabindex", "0"));
  };
  mend();
  new MutationObserver(mend).observe(document.querySelector(".md-content"), { childList: true, subtree: true });
});
