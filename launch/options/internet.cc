#include "launch/options/internet.h"

#include <memory>

#include <netdb.h>
#include <sys/socket.h>

namespace echelon {

namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

// The discard port: a datagram socket that connects sends nothing.
constexpr int kAnyPort = 9;

Addresses resolve(const std::string& host, int port, int flags) {
  addrinfo hints{.ai_flags = flags | AI_NUMERICSERV, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM};
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) found = nullptr;
  return {found, &freeaddrinfo};
}

Descriptor socket_for(const addrinfo& address) {
  return Descriptor(::socket(address.ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

Descriptor connected(const Addresses& addresses) {
  if (!addresses) return {};
  Descriptor socket = socket_for(*addresses);
  bool reached = socket.is_open() && ::connect(socket.get(), addresses->ai_addr, addresses->ai_addrlen) == 0;
  return reached ? std::move(socket) : Descriptor();
}

template <class Name>  // getsockname or getpeername
Endpoint endpoint(const Descriptor& socket, Name name) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "0";
  if (name(socket.get(), address, &length) == 0)
    getnameinfo(address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  return {host, std::stoi(port)};
}

}  // namespace

std::optional<std::string> own_address_towards(const std::string& host) {
  Descriptor socket = connected(resolve(host, kAnyPort, 0));
  if (!socket.is_open()) return {};
  std::string own = endpoint(socket, ::getsockname).address;
  if (own.empty() || own == endpoint(socket, ::getpeername).address) return {};
  return own;
}

Descriptor connect_to(const Endpoint& to) { return connected(resolve(to.address, to.port, AI_NUMERICHOST)); }

Descriptor listen_at(const std::string& address) {
  Addresses addresses = resolve(address, 0, AI_NUMERICHOST);
  if (!addresses) throw Error::recipe(address, "is no address");
  Descriptor socket = socket_for(*addresses);
  if (!socket.is_open() || ::bind(socket.get(), addresses->ai_addr, addresses->ai_addrlen) != 0)
    throw system_error(Error::Kind::recipe, address, "listen at");
  return socket;
}

Endpoint endpoint_of(const Descriptor& socket) { return endpoint(socket, ::getsockname); }

}  // namespace echelon
