/* Constants that the build machine's headers may lack, in this one place.  The values of the
   kernel's uapi headers: asm-generic, and the two processors that number differently. */

#ifndef CMSGX_CONSTANTS_H
#define CMSGX_CONSTANTS_H

#include <sys/socket.h>
#include <sys/types.h>

#ifdef __linux__
#  if defined(__sparc__)
#    define CMSGX_FALLBACK(generic, sparc, hppa) (sparc)
#  elif defined(__hppa__)
#    define CMSGX_FALLBACK(generic, sparc, hppa) (hppa)
#  else
#    define CMSGX_FALLBACK(generic, sparc, hppa) (generic)
#  endif

#  ifndef SCM_SECURITY
#    define SCM_SECURITY 3
#  endif
#  ifndef SCM_PIDFD
#    define SCM_PIDFD 4
#  endif
#  ifndef SO_PASSPIDFD
#    define SO_PASSPIDFD CMSGX_FALLBACK(76, 0x0055, 0x404A)
#  endif
#  ifndef SO_PEERPIDFD
#    define SO_PEERPIDFD CMSGX_FALLBACK(77, 0x0056, 0x404B)
#  endif
#  ifndef SO_PASSRIGHTS
#    define SO_PASSRIGHTS CMSGX_FALLBACK(83, 0x005c, 0x4053)
#  endif
#  ifndef SO_INQ
#    define SO_INQ CMSGX_FALLBACK(84, 0x005d, 0x4054)
#  endif
#  ifndef SO_PEERGROUPS
#    define SO_PEERGROUPS CMSGX_FALLBACK(59, 0x003d, 0x4034)
#  endif
#endif

/* Without MSG_CMSG_CLOEXEC (macOS) the flag is set one by one, right after the call. */
#ifdef MSG_CMSG_CLOEXEC
#  define CMSGX_MSG_CMSG_CLOEXEC MSG_CMSG_CLOEXEC
#else
#  define CMSGX_MSG_CMSG_CLOEXEC 0
#endif
/* Linux alone has an error queue. */
#ifdef MSG_ERRQUEUE
#  define CMSGX_MSG_ERRQUEUE MSG_ERRQUEUE
#else
#  define CMSGX_MSG_ERRQUEUE 0
#endif
#ifdef MSG_NOSIGNAL
#  define CMSGX_MSG_NOSIGNAL MSG_NOSIGNAL
#else
#  define CMSGX_MSG_NOSIGNAL 0
#endif

#endif
