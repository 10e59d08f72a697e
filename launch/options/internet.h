// Datagrams between machines.
#pragma once

#include <optional>
#include <string>

#include "cluster/base/descriptor.h"

namespace echelon {

struct Endpoint {
  std::string address;  ///< numeric, of either family
  int port = 0;
};

/// This machine's address towards another, as the system routes; nothing when `host` is this machine, or unknown.
std::optional<std::string> own_address_towards(const std::string& host);

/// A datagram socket that sends to `to`; not open when there is no way.
Descriptor connect_to(const Endpoint& to);

/// A datagram socket of that address alone, at a port that the system picks. Errors: Error::recipe.
Descriptor listen_at(const std::string& address);
/// Where it is bound.
Endpoint endpoint_of(const Descriptor& socket);

}  // namespace echelon
