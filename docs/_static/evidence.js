// Draws the figures of evidence in the colours that the page has, and again when they change.
const systemPrefersDark = matchMedia("(prefers-color-scheme: dark)");

function pageIsDark() {
  const chosen = document.body.dataset.theme;
  return chosen === "dark" || (chosen !== "light" && systemPrefersDark.matches);
}

function drawEvidence() {
  for (const place of document.querySelectorAll(".evidence-figure")) {
    const { figure, templates } = JSON.parse(place.nextElementSibling.textContent);
    const template = pageIsDark() ? templates.dark : templates.light;
    // A title above needs room, so the legend goes below.
    const legend = { orientation: "h", x: 0, y: -0.2, yanchor: "top" };
    const layout = { ...figure.layout, template, legend, margin: { t: 48, r: 10 } };
    Plotly.react(place, figure.data, layout, { responsive: true, displayModeBar: false });
  }
}

systemPrefersDark.addEventListener("change", drawEvidence);
new MutationObserver(drawEvidence).observe(document.body, { attributeFilter: ["data-theme"] });
drawEvidence();
