"""On PYTHONPATH, this refuses every connection and look-up that would leave the machine: so a test run shows that nothing needs the network. Child processes inherit it."""
import ipaddress, os, socket

def is_here(host):
    if host in (None, "", "localhost", socket.gethostname()): return True
    try: address = ipaddress.ip_address(host.split("%")[0] if isinstance(host, str) else host.decode())
    except ValueError: return False
    return address.is_loopback or address.is_unspecified

def refuse_outside(name):
    original = getattr(socket.socket, name)
    def call(self, address, *rest):
        if isinstance(address, tuple) and self.family != getattr(socket, "AF_UNIX", None) and not is_here(address[0]): raise OSError(f"no network in tests: a connection to {address[0]} was refused")
        return original(self, address, *rest)
    setattr(socket.socket, name, call)

for name in ("connect", "connect_ex"): refuse_outside(name)
look_up = socket.getaddrinfo

def local_look_up(host, *rest, **options):
    if not is_here(host): raise OSError(f"no network in tests: {host} was not looked up")
    return look_up(host, *rest, **options)

socket.getaddrinfo = local_look_up

if os.environ.get("COVERAGE_PROCESS_START"):   # .ci/covered.py counts what children run, too
    import coverage
    coverage.process_startup()
