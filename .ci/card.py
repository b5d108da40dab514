"""site/card.png, what a link to the site shows elsewhere: name, sentence, and slots with their edges. Run it again where the sentence changes."""
from configparser import ConfigParser
from pathlib import Path
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt, numpy as np

ROOT = Path(__file__).resolve().parent.parent

def draw():
    "The figure, 1200 x 630."
    fig = plt.figure(figsize=(12, 6.3), dpi=100, facecolor="#0b3c5d")
    ax = fig.add_axes((0, 0, 1, 1)); ax.set(xlim=(0, 12), ylim=(0, 6.3)); ax.axis("off")
    ax.text(.7, 4.1, "MemNet", color="white", fontsize=84, fontweight="bold")
    ax.text(.75, 2.5, "Neural memory that writes, links,\ndreams and forgets.", color="#c6dbef", fontsize=30, linespacing=1.4)
    ax.text(.75, 1.2, "a book of notebooks and a PyTorch package", color="#9ecae1", fontsize=19)
    angle = np.linspace(0, 2*np.pi, 9)[:-1] + .2
    at = np.c_[9.6 + 1.55*np.cos(angle), 2.6 + 1.55*np.sin(angle)]
    for i, j, w in [(0, 1, 6), (1, 2, 5), (2, 4, 3), (4, 5, 5), (5, 7, 3), (7, 0, 4), (3, 6, 2)]:
        ax.annotate("", at[j], at[i], arrowprops=dict(arrowstyle="-|>", lw=w, color="#6baed6", shrinkA=18, shrinkB=18, mutation_scale=22, connectionstyle="arc3,rad=.18"))
    ax.scatter(*at.T, s=900, c=["#e69f00"] + ["white"]*7, edgecolors="#08306b", linewidths=2, zorder=3)
    return fig

if __name__ == "__main__":
    said = ConfigParser(); said.read(ROOT/"settings.ini")
    assert "Neural memory that writes, links, dreams and forgets" in said["DEFAULT"]["description"]
    draw().savefig(ROOT/"site"/"card.png", facecolor="#0b3c5d", metadata={"Software": None})
