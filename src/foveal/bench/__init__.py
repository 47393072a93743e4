"""The bench: Foveal and its rivals on the same pictures, from real files, in the same run.

- rivals: one entry per codec, picture -> bytes -> pixels, and the grid of settings (vvc: one that needs more)
- worker: a fresh process that encodes or decodes for one codec and keeps the time
- run: the benchmark itself, pictures x codecs x settings -> one JSON line each, resumable
- results: the results file (machine: what it says of the machine)
- metrics: PSNR and MS-SSIM
- curves: mean curves and BD-rates
- report: tables, plots (in plots) and one HTML page
- loss: pictures sent over links that lose datagrams (links: the links and senders; loss_report: what came of it)
- compare: two pictures side by side with a difference map
"""
