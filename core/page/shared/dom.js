// Elements without markup: whatever comes from users becomes text, never HTML.

export const element = (id) => document.getElementById(id);

// make("a", {href: "#x", onclick: f}, "text", child): properties where the element has them, else attributes.
export function make(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null && child !== false));
  return made;
}

// Shows the items as the container's children. An item that hasn't changed keeps its element; the focus stays where
// it was, also on a button of the same name in an element that is replaced.
export function list(container, items, key, render) {
  const old = new Map([...container.children].map((child) => [child.dataset.key, child]));
  const shown = items.map((item) => {
    const content = JSON.stringify(item);
    const kept = old.get(String(key(item)));
    if (kept?.content === content) return kept;
    const fresh = render(item);
    fresh.dataset.key = key(item);
    fresh.content = content;
    return fresh;
  });
  if (shown.length === container.children.length && shown.every((child, at) => child === container.children[at]))
    return;
  const focused = container.contains(document.activeElement) ? document.activeElement : null;
  const row = focused?.closest("[data-key]")?.dataset.key;
  container.replaceChildren(...shown);
  if (!focused) return;
  const heir = shown
    .find((child) => child.dataset.key === row)
    ?.querySelector(`[name="${CSS.escape(focused.name ?? "")}"]`);
  (focused.isConnected ? focused : heir)?.focus({ preventScroll: true });
}

// Does the work, with its button out of reach meanwhile, and says what went wrong.
export async function attempt(button, work, say) {
  button.disabled = true;
  try {
    await work();
  } catch (error) {
    say(error.message);
  } finally {
    button.disabled = false;
  }
}
